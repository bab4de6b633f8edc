#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Runs guests on every engine that this machine can use, and judges how they end.
#
#     run-guests.sh bundled     the guests inside gnomon, with the host quiet and with chaos
#     run-guests.sh lib         guests/lib: what printf prints, linked elsewhere than usual
#     run-guests.sh tables      what a CR3 load leaves in the shadow tables; and edits of tables by
#                               every kind of store, with the host quiet and with chaos
#     run-guests.sh confined    guests that reach for what is not theirs: each must be killed, with
#                               a reason, and must not get to see anything
#
# Finds gnomon and the test guests in $GNOMON_BUILD. A case is a line in $GNOMON_TEST_TAP (where that
# is set) and on stdout. Exit: 0, 1 when a case failed, 77 when no engine is usable.
set -uo pipefail

engines=(kvm hosted) # all that there are; those that do not work here are skipped
gnomon=$GNOMON_BUILD/gnomon
guests=$GNOMON_BUILD/tests/guests
work=$(mktemp -d "${TMPDIR:-/tmp}/run-guests.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
failed=0 ran=0

verdict() { # "ok - CASE", "not ok - CASE"
	echo "$1"
	[ -z "${GNOMON_TEST_TAP:-}" ] || echo "$1" >>"$GNOMON_TEST_TAP"
}

# What is wrong with the run at hand: collected, told at the end of the case.
problem() {
	problems+=("$*")
}

# The value of a key of the last run's statistics.
stat_of() {
	sed -nE "s/.*\"$1\": *\"?([^\",}]*)\"?.*/\1/p" "$work/stats" | head -n 1
}

expect_stat() { # KEY test-operator VALUE
	local value
	value=$(stat_of "$1")
	if [ -z "$value" ] || ! test "$value" "$2" "$3"; then
		problem "$1 is '$value', expected $2 $3"
	fi
}

# Some line of the guest's matches the whole of the extended regular expression.
expect_line() {
	grep -Eqx -- "$1" "$work/out" || problem "no line that matches: $1"
}

run_gnomon() { # ARG...: fills out, err, stats and status
	rm -f "$work/stats"
	"$gnomon" run --quiet --stats "$work/stats" "$@" >"$work/out" 2>"$work/err" </dev/null
	status=$?
}

# A guest that works until told to stop: let run long enough to finish a pass of its work, on a
# machine as busy as this one is now. Without a pass it would show nothing.
run_for_a_pass() { # ARG...
	local seconds
	for seconds in 3 12 48; do
		run_gnomon "$@" --duration "$seconds"
		[ "$(stat_of guest_passes)" = 0 ] || break
	done
}

# case_of NAME EXIT-CODE CHECK ARG...: one run, and the function that looks at what it left. How it
# is run is up to $runner.
runner=run_gnomon
case_of() {
	local name=$1 expected=$2 check=$3
	shift 3
	problems=()
	$runner "$@"
	ran=$((ran + 1))
	[ "$status" -eq "$expected" ] || problem "exit $status, expected $expected"
	"$check"
	if [ "${#problems[@]}" -eq 0 ]; then
		verdict "ok - $name"
		return
	fi
	verdict "not ok - $name"
	failed=1
	echo "    gnomon run $*"
	printf '    %s\n' "${problems[@]}"
	sed 's/^/    out: /' "$work/out"
	sed 's/^/    err: /' "$work/err"
}

is_sound() { # what holds for every guest that ended well
	expect_stat outcome = exited
	expect_stat guest_exit -eq 0
	expect_stat corruptions -eq 0
	[ ! -s "$work/err" ] || problem "something on stderr"
}

is_chaotic() { # the host did move memory
	[[ ${variants[$variant]} != *chaos* ]] || expect_stat pages_migrated -gt 0
	expect_stat pages_disturbed -eq 0
}

hello_is_good() {
	is_sound
	expect_line 'hello from a guest on shadow page tables \(RAM [0-9]+M, image at gpa 0x10000-0x[0-9a-f]+, root at 0x[0-9a-f]+\)'
	[ "$(wc -l <"$work/out")" -eq 1 ] || problem "not one line"
}

memcheck_is_good() {
	is_sound
	is_chaotic
	expect_stat guest_passes -ge 1
	expect_line "memcheck: [0-9]+ pages filled, $(stat_of guest_passes) passes verified, 0 bad pages"
}

remap_is_good() {
	is_sound
	is_chaotic
	expect_stat guest_passes -eq 16
	expect_line 'remap: 16 of 16 rounds, 496 CR3 loads, 6976 reads, all as the tables say'
}

# What the host does meanwhile, by the name of the variant.
declare -A variants=(
	[quiet]=''
	[private]='--ram private'
	[migrate,unmap]='--chaos migrate=300,unmap=300'
	[all]='--chaos all,register'
	[private.all]='--chaos all,register --ram private'
)

# Guests that are through in a tenth of a second: so little RAM that whatever chaos draws is likely
# to be in use.
small=(--mem 1M)

# The guest named $1 on engine $2. A guest without a case here is a failure: see below.
run_bundled() {
	local name=$1 engine=$2 arguments

	for variant in "${!variants[@]}"; do
		# shellcheck disable=SC2206 # words
		arguments=(--engine "$engine" --seed 1 ${variants[$variant]})
		case $name in
		hello)
			case_of "$engine.hello.$variant" 0 hello_is_good hello "${arguments[@]}"
			case_of "$engine.hello.1M.$variant" 0 hello_is_good hello --mem 1M \
				"${arguments[@]}"
			;;
		memcheck)
			runner=run_for_a_pass
			case_of "$engine.memcheck.$variant" 0 memcheck_is_good \
				memcheck --mem 8M "${arguments[@]}"
			runner=run_gnomon
			;;
		remap)
			case_of "$engine.remap.$variant" 0 remap_is_good remap "${small[@]}" \
				"${arguments[@]}"
			;;
		*)
			verdict "not ok - $engine.$name"
			echo "    run-guests.sh does not know what to expect of $name"
			failed=1
			return
			;;
		esac
	done
}

format_is_good() {
	is_sound
	diff -u - "$work/out" >"$work/diff" <<-'EOF' || problem "$(cat "$work/diff")"
		[abc][   abc][abc   ][x][  y]
		[0][-2147483648][  -42][-42  ][-0042]
		[4294967295][18446744073709551615][-9223372036854775808]
		[beef][fedcba9876543210][0000beef][0000000000000012][   1]
		[0x400000000000][        0x10][%]
		[qqqt][0][1][1]
	EOF
}

# 64 loads, 256 pages used after each, one of them edited. Were the tables dropped, it would be 64
# times 256 faults and more.
reload_is_good() {
	is_sound
	expect_line 'reload: 64 CR3 loads, 256 pages'
	expect_stat shadow_faults -le 600
	expect_stat sptes_zapped -le 128
}

# What may be carried out is, and what may not is left to the CPU.
table_stores_is_good() {
	is_sound
	is_chaotic
	expect_stat stores_emulated -ge 1000
	expect_stat stores_unprotected -ge 20
	expect_line 'table_stores: 972 edits, 27 kinds of store, all as a CPU does them'
}

run_tables() {
	local engine=$1

	case_of "$engine.reload" 0 reload_is_good "$guests/reload.elf" --engine "$engine"
	for variant in "${!variants[@]}"; do
		# shellcheck disable=SC2086 # words
		case_of "$engine.table_stores.$variant" 0 table_stores_is_good \
			"$guests/table_stores.elf" "${small[@]}" --engine "$engine" --seed 1 ${variants[$variant]}
	done
}

is_confined() { # $reason: what the reason has to name
	expect_stat outcome = killed
	[ "$(wc -l <"$work/err")" -eq 1 ] || problem "not one line of reason"
	grep -Fq -- "$reason" "$work/err" || problem "the reason does not name $reason"
	! grep -q holds "$work/out" || problem "it saw something"
}

confined() { # ENGINE GUEST REASON [SEED]
	local reason=$3

	case_of "$1.$2${4:+.$4}" 125 is_confined "$guests/$2.elf" --engine "$1" --seed "${4:-1}"
}

run_confined() {
	local engine=$1 name page

	confined "$engine" crash 0x5000deadb000
	confined "$engine" cr3_outside 'instruction fetch'
	confined "$engine" halt hlt
	confined "$engine" selfmap 0x33fc0000000
	confined "$engine" syscall syscall
	confined "$engine" table_outside 0x10000000000
	for name in touch_monitor write_monitor jump_monitor map_monitor; do
		# Some pages of the monitor's slot, the first and the last among them.
		for page in 0 1 2 3 4 5 6 7 8 0x7ffffff; do
			confined "$engine" $name \
				"$(printf '0x%x' $((0x7f8000000000 + page * 4096)))" $page
		done
	done
	"reach_of_$engine" "$engine"
	"sgdt_of_$engine" "$engine"
}

# A CPU of kvm's has all addresses below the monitor's; those above may be the host's own
# (docs/engines.md), so nothing is expected there.
reach_of_kvm() {
	case_of kvm.out_of_reach.0 0 is_sound "$guests/out_of_reach.elf" --engine kvm --seed 0
}

# A process of the host's has neither the lowest nor the upper half.
reach_of_hosted() {
	local reach="the hosted engine's CPUs have no addresses below 0x10000, nor from 0x7f8000000000 on"

	confined hosted out_of_reach "address 0x8000 (write): $reach" 0
	confined hosted out_of_reach "address 0xffffc00000000000 (write): $reach" 1
}

sgdt_of_kvm() {
	if "$gnomon" doctor | sed -n '/^engine kvm/,/^engine hosted/p' | grep -Eq 'UMIP +no'; then
		verdict "ok - kvm.sgdt # SKIP this CPU has no UMIP"
	else
		confined kvm sgdt sgdt
	fi
}

# There is no monitor to be seen, and nobody to stop it: without UMIP SGDT shows every process of the
# host's the same, and with UMIP the host's kernel makes something up for it.
sgdt_of_hosted() {
	case_of hosted.sgdt 3 sgdt_shows_the_hosts "$guests/sgdt.elf" --engine hosted --seed 1
}

sgdt_shows_the_hosts() {
	expect_stat outcome = exited
	expect_line 'sgdt: the GDT is at 0x[0-9a-f]+'
}

for engine in "${engines[@]}"; do
	run_gnomon hello --engine "$engine"
	if [ "$status" -eq 69 ]; then
		verdict "ok - $engine # SKIP $(tail -n 1 "$work/err")"
		continue
	fi
	case $1 in
	bundled)
		names=$("$gnomon" guests | awk '{print $1}')
		[ -n "$names" ] || { verdict "not ok - $engine: no bundled guests" && failed=1; }
		for name in $names; do
			run_bundled "$name" "$engine"
		done
		;;
	lib)
		case_of "$engine.format" 0 format_is_good "$guests/format.elf" --engine "$engine"
		;;
	tables)
		run_tables "$engine"
		;;
	confined)
		run_confined "$engine"
		;;
	*)
		echo "usage: run-guests.sh bundled|lib|tables|confined" >&2
		exit 2
		;;
	esac
done

[ "$failed" -eq 0 ] || exit 1
[ "$ran" -gt 0 ] || exit 77
