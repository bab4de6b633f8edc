#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A guest on the hosted engine where a program may find itself:
#
#     tools.sh valgrind|gdb|nobody|chroot|killed
#
# Skipped where the tool, the right to use it, or the engine is missing.
set -uo pipefail

gnomon=$GNOMON_BUILD/gnomon
run=("$gnomon" run --engine hosted)
cd "$TMPDIR" || exit 1

skip() { echo "$*" && exit 77; }
fail() { echo "$*" && cat "$TMPDIR/output" 2>/dev/null && exit 1; }
needs() { command -v "$1" >/dev/null || skip "no $1"; }
said_hello() { grep -q 'hello from a guest' output; }

# Every guest there is, with all that the host may do to its memory: each is run by COMMAND... with
# its arguments, and is to end as it does anywhere.
every_guest() { # WHERE COMMAND...
	local where=$1 guest ending
	shift
	while IFS='|' read -r guest ending; do
		# shellcheck disable=SC2086
		"$@" $guest >"$TMPDIR/output" 2>&1 </dev/null || fail "$where: $guest: exit $?"
		grep -q -- "$ending" "$TMPDIR/output" || fail "$where: $guest: no '$ending'"
	done <<-'END'
		hello|hello from a guest
		hello --ram private --chaos all|hello from a guest
		remap --chaos all|all as the tables say
		remap --ram private --chaos all,register|all as the tables say
		memcheck --mem 16M --chaos all,register --duration 1|, 0 bad pages
		memcheck --mem 16M --ram private --chaos all,register --duration 1|, 0 bad pages
	END
}

timeout -k 5 60 "${run[@]}" hello >output 2>&1
status=$?
[ "$status" -ne 69 ] || skip "$(tail -n 1 output)"
[ "$status" -eq 0 ] || fail "without any tool: exit $status"
# What a sanitizer does to a program is not what these tools are used on.
case $1 in
valgrind | gdb | chroot) [ -z "${GNOMON_SANITIZE:-}" ] || skip "not with a sanitizer" ;;
esac

case $1 in
valgrind)
	needs valgrind
	# Its own refusal to start is not ours.
	valgrind -q true 2>/dev/null || skip "valgrind does not work here"
	timeout -k 5 200 valgrind -q --error-exitcode=9 "${run[@]}" --mem 16M hello >output 2>&1 ||
		fail "valgrind: exit $?"
	said_hello || fail "valgrind: no word of the guest"
	;;
gdb)
	needs gdb
	timeout -k 5 100 gdb -batch -nx -iex 'set debuginfod enabled off' -ex 'break main' -ex run \
		-ex 'bt 1' -ex continue -ex 'info program' --args "${run[@]}" hello >output 2>&1
	grep -q 'Breakpoint 1, main' output || skip "gdb cannot trace a program here"
	grep -q 'exited normally' output || fail "gdb: it did not end well"
	said_hello || fail "gdb: no word of the guest"
	;;
nobody)
	needs setpriv
	[ "$EUID" -eq 0 ] || skip "only root can become nobody"
	copy=$(mktemp -d /tmp/gnomon-nobody.XXXXXX) || exit 1
	trap 'rm -rf "$copy"' EXIT
	cp "$gnomon" "$copy/gnomon" && chmod -R a+rX "$copy" && mkdir -m 1777 "$copy/tmp"
	cd "$copy" || exit 1
	# What the sanitizers would write their reports to is not theirs.
	every_guest nobody timeout -k 5 100 setpriv --reuid 65534 --regid 65534 --clear-groups \
		--bounding-set=-all --inh-caps=-all --no-new-privs \
		env -u ASAN_OPTIONS -u TSAN_OPTIONS -u UBSAN_OPTIONS TMPDIR="$copy/tmp" \
		"$copy/gnomon" run --engine hosted
	;;
chroot)
	needs ldd
	[ "$EUID" -eq 0 ] || skip "only root can chroot"
	mkdir -p root/dev && mkdir -m 1777 root/tmp && cp "$gnomon" root/gnomon
	for node in null:3 zero:5 urandom:9; do
		mknod -m 666 "root/dev/${node%:*}" c 1 "${node#*:}" || skip "no device nodes here"
	done
	: <>root/dev/null 2>/dev/null || skip "device nodes do not work in $TMPDIR"
	while read -r lib; do
		mkdir -p "root$(dirname "$lib")" && cp -L "$lib" "root$lib"
	done < <(ldd "$gnomon" | grep -o '/[^ ]*')
	every_guest chroot env TMPDIR=/tmp timeout -k 5 100 chroot --userspec=65534:65534 root \
		/gnomon run --engine hosted
	;;
killed)
	spin=$GNOMON_BUILD/tests/guests/spin.elf
	[ -e "$spin" ] || fail "no guest that spins"
	"${run[@]}" "$spin" >output 2>&1 &
	program=$!
	children=
	for _ in $(seq 200); do
		children=$(pgrep -P "$program")
		[ -z "$children" ] || break
		sleep 0.05
	done
	[ -n "$children" ] || fail "it has no children"
	kill -KILL "$program"
	wait "$program" 2>/dev/null
	for _ in $(seq 20); do
		alive=
		for child in $children; do
			case $(cut -d ' ' -f 3 "/proc/$child/stat" 2>/dev/null) in
			'' | Z) ;;
			*) alive+=" $child" ;;
			esac
		done
		[ -n "$alive" ] || exit 0
		sleep 0.1
	done
	fail "alive after 2 s:$alive"
	;;
*) exit 64 ;;
esac
