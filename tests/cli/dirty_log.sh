# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# The part dirty_log of cli.sh, which reads this file: a map of where a guest writes.

# The map in $1: the header that explains it, at least one row, and nothing else.
map_in() { # FILE PAGES
	head -n 1 "$1" | grep -Eq "^# gnomon dirty log: .* Of $2 pages of 4K [1-9][0-9]* were written$" ||
		problem "no heading in $1"
	grep -q "^# that was written: ' ' none  \. less than 1/8 .* @ all$" "$1" || problem "no key in $1"
	grep -Eq '^ +[0-9]+\.[0-9]{3} +[1-9][0-9]* \|.{64}\|$' "$1" || problem "no row in $1"
	! grep -Evq '^#|^ +[0-9]+\.[0-9]{3} +[0-9]+ \|[ .:=+*%#@-]{64}\|$' "$1" ||
		problem "something else in $1"
}

part_dirty_log() {
	refused dirty_interval_alone 64 '--dirty-interval is about a dirty log: add --dirty-log' \
		"$gnomon" run hello --dirty-interval 5
	refused dirty_format_alone 64 '--dirty-format is about a dirty log: add --dirty-log' \
		"$gnomon" run hello --dirty-format json
	refused dirty_interval_0 64 "'0' is no interval: give milliseconds, 1 to 3600000" \
		"$gnomon" run hello --dirty-log - --dirty-interval 0
	refused dirty_interval_text 64 "'0.5' is no interval" \
		"$gnomon" run hello --dirty-log - --dirty-interval 0.5
	refused dirty_format_text 64 "text or json, not 'xml'" \
		"$gnomon" run hello --dirty-log - --dirty-format xml
	refused dirty_without_file 64 "'--dirty-log' needs a value" "$gnomon" run hello --dirty-log
	refused dirty_empty_file 64 '--dirty-log needs a file' "$gnomon" run hello --dirty-log ''
	refused dirty_folder 71 "cannot open '/' for the dirty log" \
		"$gnomon" run hello --dirty-log /
	refused dirty_nowhere 71 'cannot open .* for the dirty log: No such file' \
		"$gnomon" run hello --dirty-log "$work/nowhere/map"

	usable || { begin dirty_log && skip_case "no usable engine here" && return; }

	begin dirty_log_as_text
	run "$gnomon" run hello --quiet --dirty-log map --stats stats
	exits 0
	[ ! -s "$work/err" ] || problem "something on stderr"
	[ "$(wc -l <"$work/out")" -eq 1 ] || problem "not one line of the guest's"
	map_in map 16384
	stats outcome=exited warnings=0 'dirty_marked>0'
	end

	begin dirty_log_to_stdout
	run "$gnomon" run hello --quiet --dirty-log - --stats -
	exits 0
	head -n 1 "$work/out" | grep -q '^hello from a guest' || problem "the guest does not come first"
	sed -n '2,/^{/p' "$work/out" | sed '/^{/d' >map
	map_in map 16384
	sed -n '/^{/,$p' "$work/out" >stats
	stats outcome=exited
	end

	begin dirty_log_as_json
	run_until 'guest_passes>0' 1 memcheck --quiet --mem 1M --dirty-interval 50 --seed 7 \
		--dirty-log map.json
	exits 0
	mv map.json stats
	stats guest=memcheck seed=7 pages=256 page_bytes=4096 column_pages=4 interval_ms=50 \
		'pages_written>100' 'rows.0.end_s>0.04' rows.0.samples=1 'rows.1.end_s>0.09' 'rows.0.pages>0' \
		'rows.0.columns.0>0'
	end

	begin dirty_log_in_the_other_format
	run "$gnomon" run hello --quiet --dirty-log stats --dirty-format json
	exits 0
	stats guest=hello 'pages_written>0' 'rows.0.pages>0'
	run "$gnomon" run hello --quiet --dirty-log map.json --dirty-format text
	exits 0
	map_in map.json 16384
	end

	# Memory moves and goes, shadow pages are few, all is checked: it is one more user of the slot.
	begin dirty_log_under_chaos
	run "$gnomon" run memcheck --mem 1M --chaos all --duration 1 --dirty-interval 5 --dirty-log map \
		--shadow-pages 19 --audit --quiet --stats stats
	exits 0
	map_in map 256
	stats outcome=exited corruptions=0 warnings=0 'dirty_protected>0'
	end

	begin dirty_log_of_the_stopped
	start memcheck --mem 1M --dirty-interval 3600000 --dirty-log map --stats stats
	kill -INT "$pid"
	reap
	exits 130
	grep -q '^# gnomon dirty log: memcheck' map || problem "no map"
	stats outcome=stopped 'wall_s<5' warnings=0
	end

	begin dirty_log_of_the_killed
	run "$gnomon" run "$guests/crash.elf" --quiet --dirty-log map
	exits 125
	grep -q '^# gnomon dirty log: .*crash.elf' map || problem "no map"
	end

	begin dirty_log_is_full
	run "$gnomon" run hello --quiet --dirty-log /dev/full
	exits 71
	says "cannot write the dirty log to '/dev/full': No space left"
	end
}
