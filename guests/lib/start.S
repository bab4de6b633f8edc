/* SPDX-License-Identifier: 0BSD */
/*
 * Where a guest begins. The loader has done the work (boot.h): long mode, paging, a stack, and RDI
 * pointing at struct boot_info, which is main's argument. What main returns is the exit code.
 */
#include "boot.h"

	.section .text.start, "ax", @progbits
	.globl	_start
	.type	_start, @function
_start:
	xorl	%ebp, %ebp		/* the end of the chain, for whoever unwinds the stack */
	cld
	call	main
	outb	%al, $PORT_EXIT
1:	hlt				/* not reached: PORT_EXIT ends the guest */
	jmp	1b
	.size	_start, . - _start

	.section .note.GNU-stack, "", @progbits
