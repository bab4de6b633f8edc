#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# gnomon from the outside: exit codes, one clear line for each mistake, and nothing left behind.
#
#     cli.sh usage        help, lists, and command lines that make no sense
#     cli.sh refusals     what is refused before a guest starts
#     cli.sh endings      every way in which a run ends, and output that cannot be written
#     cli.sh dirty_log    what --dirty-log writes (dirty_log.sh)
#     cli.sh promises     memory moves under a guest and it does not notice; without a protection it
#                         does
#
# Finds gnomon, check_stats and the test guests in $GNOMON_BUILD. A case is a line in
# $GNOMON_TEST_TAP (where that is set) and on stdout. Exit: 0, 1 when a case failed.
set -uo pipefail

gnomon=$GNOMON_BUILD/gnomon
guests=$GNOMON_BUILD/tests/guests
check_stats=$GNOMON_BUILD/tests/cli/check_stats
work=$(mktemp -d "${TMPDIR:-/tmp}/cli.XXXXXX") || exit 1
# Whatever runs in the background ends with this script.
trap 'jobs -p | xargs -r kill -KILL 2>/dev/null; rm -rf "$work"' EXIT
failed=0

verdict() { # "ok - CASE", "not ok - CASE"
	echo "$1"
	[ -z "${GNOMON_TEST_TAP:-}" ] || echo "$1" >>"$GNOMON_TEST_TAP"
}

# --- a case: begin, run something, look at what it left, end

begin() {
	name=$1 problems=()
	rm -rf "$work"/case
	mkdir "$work/case"
	cd "$work/case" || exit 1
	: >"$work/out"
	: >"$work/err"
}

problem() { problems+=("$*"); }

end() {
	if [ "${#problems[@]}" -eq 0 ]; then
		verdict "ok - $name"
		return
	fi
	verdict "not ok - $name"
	failed=1
	printf '    %s\n' "${problems[@]}"
	sed 's/^/    out: /' "$work/out"
	sed 's/^/    err: /' "$work/err"
}

skip_case() { verdict "ok - $name # SKIP $*"; }

run() { # COMMAND...: fills out, err and status
	"$@" >"$work/out" 2>"$work/err" </dev/null
	status=$?
}

exits() { [ "$status" -eq "$1" ] || problem "exit $status, expected $1"; }

silent() { [ ! -s "$work/out" ] || problem "something on stdout"; }

says() { # REGEX: exactly one line on stderr, and it matches
	[ "$(wc -l <"$work/err")" -eq 1 ] || problem "not one line on stderr"
	[ "$(wc -c <"$work/err")" -lt 600 ] || problem "a long line on stderr"
	grep -Eq -- "^gnomon: .*($1)" "$work/err" || problem "stderr does not match: $1"
}

leaves_nothing() { # in the folder it ran in
	[ -z "$(ls -A "$work/case")" ] || problem "it left: $(ls -A "$work/case")"
}

stats() { # EXPECTATION...: of the file "stats" in the current folder
	local line
	while IFS= read -r line; do
		problem "$line"
	done < <("$check_stats" stats "$@" 2>&1)
}

# refused NAME EXIT REGEX COMMAND...
refused() {
	local expected=$2 regex=$3
	begin "$1"
	shift 3
	run "$@"
	exits "$expected"
	silent
	says "$regex"
	leaves_nothing
	end
}

usable() { [ "${have_engine:-}" = yes ]; }
case_needs_engine() {
	begin "$1"
	usable && return
	skip_case "no usable engine here"
	return 1
}

# A guest that works until told to stop, with its stats in "stats": longer and longer until it has got
# somewhere, on a machine as busy as this one is now, on whatever engine there is.
run_until() { # EXPECTATION SECONDS ARG...
	local expectation=$1 seconds=$2 times
	shift 2
	for times in 1 4 16; do
		run "$gnomon" run "$@" --stats stats --duration $((seconds * times))
		"$check_stats" stats "$expectation" >/dev/null 2>&1 && return
	done
}

# Until something is in a file, or the time of the test is over.
wait_for() { # REGEX FILE
	until grep -Eq -- "$1" "$2"; do
		kill -0 "$pid" 2>/dev/null || return 1
		read -r -t 0.02 <>"$never" || true
	done
}

# Until the process has a file in the folder swap that is larger than nothing.
wait_for_swap() { # PID
	local fd
	while kill -0 "$1" 2>/dev/null; do
		for fd in /proc/"$1"/fd/*; do
			case $(readlink "$fd") in
			"$PWD"/swap/*) [ "$(stat -L -c %b "$fd" 2>/dev/null || echo 0)" -eq 0 ] || return 0 ;;
			esac
		done
	done
	problem "it ended before it swapped"
}

# --- parts

. "$(dirname "$0")/dirty_log.sh"

part_usage() {
	local word

	begin help
	run "$gnomon" --help
	exits 0
	[ ! -s "$work/err" ] || problem "something on stderr"
	for word in run guests doctor 'Exit codes'; do
		grep -q "$word" "$work/out" || problem "no word of '$word'"
	done
	end
	for word in run guests doctor; do
		begin "help_$word"
		run "$gnomon" "$word" --help
		exits 0
		[ ! -s "$work/err" ] || problem "something on stderr"
		grep -q "^Usage: gnomon $word" "$work/out" || problem "no usage line"
		end
	done
	begin help_knows_the_exit_codes
	run "$gnomon" run --help
	for word in 0..127 64 65 66 69 70 71 125 130; do
		grep -Eq "^  ${word/../\\.\\.} " "$work/out" || problem "no word of exit code $word"
		grep -Eq "^\.It $word( |$)|^\.It (.*)\b$word\b" "$GNOMON_SOURCE/docs/gnomon.1" ||
			problem "docs/gnomon.1 has no exit code $word"
	done
	# Every option is in the manual, and the other way round.
	diff <(grep -oE '^ +(-., )?--[a-z-]+' "$work/out" | grep -oE -- '--[a-z-]+' | sort -u) \
		<(grep -oE '^\.It Fl Fl [a-z-]+' "$GNOMON_SOURCE/docs/gnomon.1" | sed 's/.* /--/' |
			grep -vxE -- '--(json|version)' | sort -u) >differences ||
		problem "$(cat differences)"
	end
	begin version
	run "$gnomon" --version
	exits 0
	grep -Eqx 'gnomon [0-9]+\.[0-9]+' "$work/out" || problem "no version"
	end
	begin guests
	run "$gnomon" guests
	exits 0
	for word in hello memcheck remap; do
		grep -Eq "^$word +[a-z]" "$work/out" || problem "no $word"
	done
	end
	begin guests_json
	run "$gnomon" guests --json
	exits 0
	cp "$work/out" stats
	stats 0.name=hello '0.size>100'
	end

	refused no_command 64 'which command' "$gnomon"
	refused unknown_command 64 "no command 'fly'" "$gnomon" fly
	refused unknown_first_option 64 "no option '--fly'" "$gnomon" --fly
	refused no_guest 64 'which guest' "$gnomon" run
	refused two_guests 64 "'memcheck'" "$gnomon" run hello memcheck
	refused unknown_option 64 "no option '--fly'" "$gnomon" run hello --fly
	refused unknown_option_first 64 "no option '--fly=1'" "$gnomon" run --fly=1 hello
	refused unknown_letter 64 "no option '-x'" "$gnomon" run -x hello
	refused unknown_letters 64 "no option '-xyz'" "$gnomon" run hello -xyz
	refused option_without_value 64 "'--mem' needs a value" "$gnomon" run hello --mem
	refused option_with_value 64 "'--quiet' takes no value" "$gnomon" run hello --quiet=yes
	refused ambiguous_option 64 "may mean --(seed|stats|swap) or" "$gnomon" run hello --s 1
	refused unknown_engine 64 "no engine 'warp', only auto, kvm and hosted" "$gnomon" run hello --engine warp
	refused unknown_chaos 64 "'explode' is no kind of chaos.*migrate, unmap" \
		"$gnomon" run hello --chaos migrate,explode
	refused chaos_of_private_ram 64 "'fork' is about private memory: add --ram private" \
		"$gnomon" run hello --chaos all,fork
	refused chaos_of_shared_ram 64 "'unmap' would lose private memory: add --swap" \
		"$gnomon" run hello --chaos unmap --ram private --swap 0
	refused chaos_without_swap 64 "'swap' needs somewhere to put pages" \
		"$gnomon" run hello --chaos swap --swap 0
	refused swap_text 64 "'lots' is no size" "$gnomon" run hello --swap lots
	refused unknown_ram 64 "private or shared, not 'borrowed'" \
		"$gnomon" run hello --ram borrowed
	refused frames_0 64 'a machine without memory' "$gnomon" run hello --frames 0
	refused frames_text 64 "'lots' is no size" "$gnomon" run hello --frames lots
	refused shadow_pages_18 64 '18 is too few: a guest needs 19' "$gnomon" run hello --shadow-pages 18
	refused shadow_pages_text 64 "'lots' is no number" "$gnomon" run hello --shadow-pages lots
	refused prefetch_3 64 "power of two of at most 64, not '3'" "$gnomon" run hello --prefetch 3
	refused chaos_rate 64 'operations per second' "$gnomon" run hello --chaos migrate=0
	refused audit_level 64 "'9' is no level of audits.*0 .off., 1" "$gnomon" run hello --audit=9
	refused audit_level_word 64 "'9' is no level of audits" "$gnomon" run --audit 9 hello
	refused audit_level_text 64 "'all' is no level of audits" "$gnomon" run hello --audit=all
	refused why_text 64 "'here' is no address" "$gnomon" run hello --why here
	refused why_blank 64 "'' is no address" "$gnomon" run hello --why ''
	refused why_too_large 64 'is no address' "$gnomon" run hello --why 0x10000000000000000
	refused why_without_address 64 "'--why' needs a value" "$gnomon" run hello --why
	refused dump_without_file 64 "'--dump-shadow' needs a value" "$gnomon" run hello --dump-shadow
	refused unknown_break 64 "'leg' cannot be broken" "$gnomon" run hello --break leg
	refused mem_0 64 '1M or more' "$gnomon" run hello --mem 0
	refused mem_text 64 "'lots' is no size" "$gnomon" run hello --mem lots
	refused mem_unaligned 64 '4K pages' "$gnomon" run hello --mem 2097153
	refused mem_negative 64 'is no size' "$gnomon" run hello --mem -1
	refused duration_0 64 'duration' "$gnomon" run hello --duration 0
	refused duration_text 64 'is no duration' "$gnomon" run hello --duration soon
	refused seed_text 64 'is no seed' "$gnomon" run hello --seed salt
	refused doctor_argument 64 "what is 'ill' for" "$gnomon" doctor ill
}

part_refusals() {
	local elf=$GNOMON_BUILD/guests/hello.elf size

	refused unknown_guest 66 "no guest and no file 'nobody'.*hello, memcheck, remap" \
		"$gnomon" run nobody
	refused no_such_file 66 "no file './hello'" "$gnomon" run ./hello
	refused guest_is_a_folder 66 'not a regular file' "$gnomon" run /
	mkfifo "$work/fifo"
	refused guest_is_a_fifo 66 'not a regular file' "$gnomon" run "$work/fifo"

	size=$(wc -c <"$elf")
	printf 'Once upon a time there was a file.' >"$work/text"
	: >"$work/empty"
	refused not_elf 65 "'$work/text': not an ELF file" "$gnomon" run "$work/text"
	refused empty 65 "'$work/empty': not an ELF file" "$gnomon" run "$work/empty"
	for part in 1 16 63 64 100 $((size / 2)); do
		head -c "$part" "$elf" >"$work/truncated"
		refused "truncated_$part" 65 "cannot load '$work/truncated'" \
			"$gnomon" run "$work/truncated"
	done
	truncate -s 300M "$work/huge"
	refused huge 65 'larger than' "$gnomon" run "$work/huge"
	rm "$work/huge"

	refused mem_1T 71 '--mem 1T is more than this host can back: .* at most' \
		"$gnomon" run hello --mem 1T
	refused mem_16383P 64 'no size|larger than any' "$gnomon" run hello --mem 99999999T
	refused frames_1M 64 \
		"--frames 1M is too little for 'hello': its image, its page tables .* take [0-9]+K" \
		"$gnomon" run hello --mem 1M --frames 1M
	refused frames_1T 71 '--frames 1T is more than this host can back: .* at most' \
		"$gnomon" run hello --frames 1T
	in_folder() { TMPDIR=$1 "${@:2}"; }
	refused swap_nowhere 71 'cannot make a swap file in /nowhere: No such file.*TMPDIR' \
		in_folder /nowhere "$gnomon" run hello --swap 1M
	limited() { (ulimit -f 10240 && exec "$@"); }
	refused mem_limited 71 'RLIMIT_FSIZE.* at most' limited "$gnomon" run hello
	refused stats_folder 71 "cannot open '/' for the stats" "$gnomon" run hello --stats /
	refused dump_folder 71 "cannot open '/' for the shadow tables" \
		"$gnomon" run hello --dump-shadow /
	refused dump_nowhere 71 'cannot open .* for the shadow tables: No such file' \
		"$gnomon" run hello --dump-shadow "$work/nowhere/tables"
	refused stats_nowhere 71 'cannot open .* for the stats: No such file' \
		"$gnomon" run hello --stats "$work/nowhere/stats"

	if case_needs_engine segment_outside_ram; then
		run "$gnomon" run "$guests/outside.elf" --stats stats
		exits 65
		says 'cannot load .*outside.elf'
		stats outcome=error guest_exit=null guest_passes=0
		end
	fi
	without_kvm
}

# A mount namespace of our own whose /dev has what a program may expect, but no kvm.
without_kvm() {
	local unshare=(unshare --mount)

	begin without_kvm
	[ "$(id -u)" -eq 0 ] || unshare+=(--map-root-user)
	cat >"$work/hide" <<-'END'
		exec 2>/dev/null
		mount -t tmpfs none /dev && : >/dev/null || exit 99
		exec 2>&3 3>&- "$@"
	END
	hidden() { "${unshare[@]}" bash "$work/hide" "$@" 3>&2; }
	run hidden true
	if [ "$status" -ne 0 ]; then
		skip_case "this user may not make a mount namespace"
		return
	fi
	run hidden "$gnomon" run hello --engine kvm --stats stats
	exits 69
	silent
	says '/dev/kvm does not exist.*(module|container)'
	stats outcome=error engine=kvm guest_exit=null
	run hidden "$gnomon" doctor
	grep -q 'engine kvm: not usable' "$work/out" || problem "the doctor sees kvm"
	grep -q '/dev/kvm' "$work/out" || problem "the doctor does not say why"
	if grep -q 'engine hosted: usable' "$work/out"; then
		exits 0
		run hidden "$gnomon" run hello --stats stats
		exits 0
		says 'hello on engine hosted'
		stats outcome=exited engine=hosted
	else
		exits 69
		run hidden "$gnomon" run hello --stats stats
		exits 69
		says 'the kvm engine .*; the hosted engine'
		stats outcome=error engine=null
	fi
	run hidden "$gnomon" doctor --json
	cp "$work/out" stats
	stats engines.0.name=kvm engines.0.usable=false engines.1.name=hosted
	run hidden "$gnomon" run nobody
	exits 66
	end
}

# Run in the background until it has started its guest; $pid.
start() {
	"$gnomon" run "$@" >"$work/out" 2>"$work/err" </dev/null &
	pid=$!
	wait_for '^gnomon: .* on engine' "$work/err" || problem "it did not start"
}

reap() {
	wait "$pid"
	status=$?
	! kill -0 "$pid" 2>/dev/null || problem "it is still there"
}

part_endings() {
	local seconds recycled engine

	usable || { begin endings && skip_case "no usable engine here" && return; }

	begin exited
	run "$gnomon" run hello --seed 77 --stats stats
	exits 0
	[ "$(wc -l <"$work/out")" -eq 1 ] || problem "not one line of the guest's"
	says 'hello on engine (kvm|hosted), seed 77'
	engine=$(sed -n 's/.* on engine \([a-z]*\),.*/\1/p' "$work/err")
	stats outcome=exited guest_exit=0 seed=77 "engine=$engine" mem_bytes=67108864 corruptions=0 \
		'wall_s>0' kill_reason=null error=null warnings=0
	end

	begin quiet
	run "$gnomon" run hello --quiet
	exits 0
	[ ! -s "$work/err" ] || problem "it is not quiet"
	leaves_nothing
	end

	begin stats_after_the_output
	run "$gnomon" run hello --stats - --quiet
	exits 0
	head -n 1 "$work/out" | grep -q '^hello' || problem "the guest does not come first"
	tail -n +2 "$work/out" >stats
	stats outcome=exited
	end

	begin killed
	run "$gnomon" run "$guests/crash.elf" --quiet --stats stats
	exits 125
	says 'guest killed: .*the guest has no IDT'
	stats outcome=killed guest_exit=null warnings=0
	"$check_stats" stats kill_reason=null >/dev/null && problem "no kill_reason"
	end

	begin halted
	run "$gnomon" run "$guests/halt.elf" --quiet
	exits 125
	says 'guest killed: .*nothing can wake it'
	end

	begin out_of_frames
	run "$gnomon" run memcheck --mem 8M --frames 4M --swap 0 --quiet --stats stats
	exits 125
	says 'guest killed: out of frames: [0-9]+ of 1024 are free.*no swap file'
	stats outcome=killed frames_bytes=4194304 swap_bytes=0 warnings=0
	end

	# ThreadSanitizer's guest needs its time to come to the 17th table of leaves.
	seconds=2 recycled=16
	[ "${GNOMON_SANITIZE:-}" != thread ] || seconds=8 recycled=0
	begin few_shadow_pages
	run_until "pages_recycled>$recycled" $seconds memcheck --mem 64M --shadow-pages 19 --seed 1 --quiet
	exits 0
	stats outcome=exited corruptions=0 warnings=0 "pages_recycled>$recycled"
	end

	begin out_of_swap
	run "$gnomon" run memcheck --mem 16M --frames 4M --swap 2M --quiet --stats stats
	exits 125
	says 'guest killed: out of frames: .*of 512 pages of swap 512 are used'
	stats outcome=killed swap_bytes=2097152 warnings=0 swap_errors=0
	end

	# However it ends: the swap file never had a name for long.
	begin killed_while_it_swaps
	mkdir swap
	TMPDIR=$PWD/swap start memcheck --mem 16M --frames 4M
	wait_for_swap "$pid"
	kill -KILL "$pid"
	reap 2>/dev/null
	exits 137
	[ -z "$(ls -A swap)" ] || problem "it left: $(ls -A swap)"
	end

	begin asked_to_stop
	run "$gnomon" run memcheck --mem 2M --duration 0.3 --stats stats
	exits 0
	stats outcome=exited guest_exit=0 corruptions=0 'wall_s>0.29' 'wall_s<9' warnings=0
	end

	begin does_not_stop
	run "$gnomon" run "$guests/spin.elf" --duration 1 --quiet --stats stats
	exits 125
	says 'guest killed: asked to stop after 1.000 s, it had not ended 10 s later'
	silent
	stats outcome=killed 'wall_s>10.9' 'wall_s<20' warnings=0
	end

	local signal
	for signal in INT TERM HUP; do
		begin "stopped_by_$signal"
		start "$guests/spin.elf" --stats stats
		kill "-$signal" "$pid"
		reap
		exits 130
		grep -q "^gnomon: stopped by SIG$signal" "$work/err" || problem "it does not say so"
		stats outcome=stopped guest_exit=null warnings=0 'wall_s<5'
		end
	done

	begin stopped_under_chaos
	start memcheck --chaos all,register --stats stats
	kill -INT "$pid"
	kill -INT "$pid"
	reap
	exits 130
	stats outcome=stopped corruptions=0 warnings=0
	end

	part_broken_output
	part_inspection
}

# The tables in $1: a tree that begins with a root and ends with a count.
tree_in() {
	grep -Eq '^root gfn 0x[0-9a-f]+ frame 0x[0-9a-f]+, supervisor wp nx, vCPU 0$' "$1" ||
		problem "no root in $1"
	grep -Eq '^ +0x[0-9a-f]{16}-0x[0-9a-f]{16} gfn .* frame .* rwx$' "$1" || problem "no leaf in $1"
	grep -Eq '^tables: [0-9]+, pages: [1-9]' "$1" || problem "no count in $1"
}

# ask_for_tree FILE: the running one, once more, and waits for its answer there.
ask_for_tree() {
	asked=$((asked + 1))
	kill -USR1 "$pid"
	until [ "$(grep -c 'memcheck, on SIGUSR1' "$1")" -eq "$asked" ]; do
		kill -0 "$pid" 2>/dev/null || { problem "it ended" && return; }
		read -r -t 0.02 <>"$never" || true
	done
}

part_inspection() {
	local level asked=0

	begin dump_to_a_file
	run "$gnomon" run hello --quiet --dump-shadow tables
	exits 0
	[ ! -s "$work/err" ] || problem "something on stderr"
	[ "$(wc -l <"$work/out")" -eq 1 ] || problem "not one line of the guest's"
	head -n 1 tables | grep -qx 'hello, at its end' || problem "no heading"
	tree_in tables
	end

	begin dump_and_stats_to_stdout
	run "$gnomon" run hello --quiet --dump-shadow - --why 0x400000 --stats -
	exits 0
	head -n 1 "$work/out" | grep -q '^hello from a guest' || problem "the guest does not come first"
	tree_in "$work/out"
	grep -q '^gva    0x400000 on vCPU 0, cr3 0x' "$work/out" || problem "no word of the address"
	sed -n '/^{/,$p' "$work/out" >stats
	stats outcome=exited
	end

	begin why_an_address
	run "$gnomon" run hello --quiet --why 0x400000
	exits 0
	head -n 1 "$work/out" | grep -q '^hello from a guest' || problem "the guest says nothing"
	[ "$(grep -c '^guest  level' "$work/err")" -eq 4 ] || problem "not four levels of the guest's"
	[ "$(grep -c '^shadow level' "$work/err")" -eq 4 ] || problem "not four levels of ours"
	tail -n 1 "$work/err" | grep -qx 'so     a read works; a write works; a fetch works' ||
		problem "no verdict"
	end

	begin why_of_the_killed
	run "$gnomon" run "$guests/crash.elf" --why 0x8000000000000000 --dump-shadow tables
	exits 125
	tree_in tables
	tail -n 1 tables | grep -q '^so     any access is .*#GP: not canonical$' || problem "no verdict"
	end

	begin dump_is_full
	run "$gnomon" run hello --quiet --dump-shadow /dev/full
	exits 71
	says 'cannot write the shadow tables: No space left'
	end

	# It goes on afterwards: it is asked again, and then ends by itself.
	begin asked_by_SIGUSR1
	start memcheck --mem 2M --duration 60 --dump-shadow tables --why 0x400000 --stats stats
	# The first answers may come before the guest has tables.
	until grep -Eq '^tables: [0-9]+, pages: [1-9]' tables || ! kill -0 "$pid" 2>/dev/null; do
		ask_for_tree tables
	done
	for level in 1 2 3; do
		ask_for_tree tables
	done
	kill -INT "$pid"
	reap
	exits 130
	tree_in tables
	[ "$(grep -Ec "^so     |has no tables yet" tables)" -eq $((asked + 1)) ] || problem "not a verdict in each answer"
	[ "$(grep -c 'memcheck, at its end' tables)" -eq 1 ] || problem "no last word"
	[ "$(wc -l <"$work/err")" -eq 2 ] || problem "something on stderr"
	stats outcome=stopped corruptions=0 warnings=0
	end

	# Unasked for before, and while memory moves: on stderr.
	begin asked_by_SIGUSR1_on_stderr
	start memcheck --mem 8M --chaos all --audit=2 --duration 60
	# The first answers may come before the guest has run.
	until grep -Eq '^tables: [0-9]+, pages: [1-9]' "$work/err"; do
		kill -USR1 "$pid" 2>/dev/null || { problem "it ended" && break; }
		read -r -t 0.1 <>"$never" || true
	done
	kill -INT "$pid"
	reap
	exits 130
	tree_in "$work/err"
	end

	# Nobody reads stderr: it still hears Ctrl-C.
	begin asked_and_not_listened_to
	open_pipe
	dd if=/dev/zero of="$work/pipe" bs=4096 count=1000 oflag=nonblock 2>/dev/null
	"$gnomon" run memcheck --mem 2M --quiet --stats stats >"$work/out" 2>&4 </dev/null &
	pid=$!
	wait_for '^SigBlk:.*[2367abef]..$' "/proc/$pid/status" || problem "it waits for no signal"
	kill -USR1 "$pid"
	wait_for '^ShdPnd:[[:space:]]*0*$' "/proc/$pid/status" || problem "it does not look"
	kill -INT "$pid"
	reap
	exec 3<&- 4>&-
	exits 130
	stats outcome=stopped warnings=0
	end

	for level in '' =0 =1 =2; do
		begin "audited${level/=/_}"
		run "$gnomon" run memcheck --mem 1M "--audit$level" --chaos migrate,unmap --duration 0.3 \
			--quiet --stats stats
		exits 0
		stats outcome=exited corruptions=0 warnings=0
		end
	done
}

# stdout as a FIFO; 4 writes to it.
open_pipe() {
	rm -f "$work/pipe"
	mkfifo "$work/pipe"
	exec 3<>"$work/pipe" 4>"$work/pipe"
}

part_broken_output() {
	begin output_is_full
	"$gnomon" run hello --quiet >/dev/full 2>"$work/err"
	status=$?
	exits 71
	says "output cannot be written: No space left"
	end

	begin output_is_closed
	"$gnomon" run hello --quiet 2>"$work/err" >&-
	status=$?
	exits 71
	says "output cannot be written: Bad file"
	end

	begin output_has_no_reader
	open_pipe
	exec 3<&-
	"$gnomon" run hello --quiet --stats stats >&4 2>"$work/err"
	status=$?
	exec 4>&-
	exits 71
	says "output cannot be written: Broken pipe"
	stats outcome=error warnings=0
	end

	# A vCPU waits for a reader that never reads; Ctrl-C is heard all the same.
	begin output_is_stuck
	open_pipe
	dd if=/dev/zero of="$work/pipe" bs=4096 count=1000 oflag=nonblock 2>/dev/null
	"$gnomon" run hello --stats stats >&4 2>"$work/err" </dev/null &
	pid=$!
	wait_for '^gnomon: .* on engine' "$work/err" || problem "it did not start"
	kill -INT "$pid"
	reap
	exec 3<&- 4>&-
	exits 130
	stats outcome=stopped warnings=0
	end

	begin stats_are_full
	run "$gnomon" run hello --quiet --stats /dev/full
	exits 71
	says "cannot write the stats to '/dev/full': No space left"
	end

	begin help_is_full
	"$gnomon" --help >/dev/full 2>"$work/err"
	status=$?
	exits 71
	says 'cannot write to stdout'
	end
}

# A kind's digest in the file $2, if it is of as many choices as there can be.
digest_of() {
	"$check_stats" "$2" "mutation_draws.$1=100" >/dev/null 2>&1 || return
	sed -n "/\"mutation_digest\"/,/}/s/.*\"$1\": \"\(.*\)\".*/\1/p" "$2"
}

# Every kind there is, on both kinds of RAM; and what a kind chooses is up to the seed alone.
all_kinds_at_once() {
	local ram kind seen common=(migrate unmap protect swap remap age balloon register)

	for ram in shared private; do
		begin "all_kinds_on_${ram}_ram"
		seen='pages_copied>0'
		[ $ram = private ] || seen='hole_waits>0'
		run_until "$seen" $seconds memcheck --mem 64M --ram $ram --chaos all,register --seed 1 \
			--quiet
		exits 0
		stats outcome=exited guest_exit=0 corruptions=0 warnings=0 pages_disturbed=0 ram=$ram
		for kind in "${common[@]}"; do
			stats "mutations.$kind>$((70 / share))" "mutation_pages.$kind>0"
		done
		case $ram in
		shared) stats "$seen" 'pages_swapped_in>0' ;;
		private)
			stats "mutations.fork>$((20 / share))" "mutations.merge>$((70 / share))" \
				'mutation_pages.merge>0' "$seen"
			;;
		esac
		cp stats "$work/stats.$ram"
		end
	done
	begin the_same_seed_makes_the_same_choices
	for kind in "${common[@]}"; do
		[ -n "$(digest_of "$kind" "$work/stats.shared")" ] || continue
		[ -n "$(digest_of "$kind" "$work/stats.private")" ] || continue
		[ "$(digest_of "$kind" "$work/stats.shared")" = \
			"$(digest_of "$kind" "$work/stats.private")" ] ||
			problem "not the same choices of $kind"
	done
	[ -n "$(digest_of migrate "$work/stats.shared")" ] || problem "no digest of migrate"
	run "$gnomon" run memcheck --mem 64M --chaos migrate --seed 2 --duration 1 --quiet --stats stats
	[ "$(digest_of migrate "$work/stats.shared")" != "$(digest_of migrate stats)" ] ||
		problem "the same choices of another seed"
	end
}

# memcheck with chaos: shorter in a slow build, and the numbers to be reached are a tenth.
part_promises() {
	local seconds=5 share=1 what overcommitted=10

	usable || { begin promises && skip_case "no usable engine here" && return; }
	[ -z "${GNOMON_SANITIZE:-}" ] || share=10
	grep -qs '^GNOMON_DEBUG:BOOL=ON' "$GNOMON_BUILD/CMakeCache.txt" && share=10
	[ "$share" -eq 1 ] || { seconds=3 && overcommitted=5; }

	begin memory_moves_and_nobody_notices
	run "$gnomon" run memcheck --mem 64M --chaos migrate,unmap --duration $seconds --seed 1 \
		--quiet --stats stats
	exits 0
	stats outcome=exited guest_exit=0 corruptions=0 warnings=0 \
		"pages_migrated>$((1999 / share))" "pages_migrated_mapped>$((999 / share))" \
		"refaults>$((999 / share))" 'shootdowns>0' "mutations.migrate>$((200 / share))" \
		"mutations.unmap>$((200 / share))"
	[ "$share" -ne 1 ] || stats 'guest_passes>2'
	end

	all_kinds_at_once

	# Children of the guest's address space, and balloons, take the little that is left over.
	begin little_memory_is_left_over
	run "$gnomon" run memcheck --mem 8M --frames 8640K --ram private --duration $seconds --seed 1 \
		--chaos fork=30,balloon=30,migrate=100 --quiet --stats stats
	exits 0
	stats outcome=exited corruptions=0 warnings=0 pages_disturbed=0 'pages_copied>99'
	end

	# Four times as much memory as there is.
	for what in shared private; do
		begin "overcommitted_${what}_ram"
		run_until 'guest_passes>0' $overcommitted memcheck --mem 16M --frames 4M --ram $what --seed 1 \
			--quiet
		exits 0
		stats outcome=exited corruptions=0 warnings=0 swap_bytes=16777216 'guest_passes>0' \
			"pages_swapped_in>$((4000 / share))" swap_errors=0
		end
	done

	for what in zap shootdown; do
		begin "without_$what"
		run "$gnomon" run memcheck --mem 64M --chaos migrate,unmap --duration $seconds --seed 1 \
			--break "$what" --stats stats
		exits 1
		grep -q "broken on purpose: $what" "$work/err" || problem "it does not warn"
		grep -q CORRUPTION "$work/out" || problem "the guest does not report it"
		stats outcome=exited guest_exit=1 'corruptions>0' "break.0=$what"
		end
	done
}

never=$work/never
mkfifo "$never"
if "$gnomon" doctor >"$work/doctor" 2>&1; then
	have_engine=yes
elif [ $? -ne 69 ]; then
	verdict "not ok - doctor"
	cat "$work/doctor"
	exit 1
fi

case ${1:-} in
usage | refusals | endings | dirty_log | promises) "part_$1" ;;
*)
	echo "usage: cli.sh usage|refusals|endings|dirty_log|promises" >&2
	exit 2
	;;
esac
exit $failed
