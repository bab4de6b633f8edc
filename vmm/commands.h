/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The subcommands, a file each (cmd_<name>.c): argv[0] is the name; they return an exit code. */
#ifndef VMM_COMMANDS_H
#define VMM_COMMANDS_H

int cmd_run(int argc, char **argv);
int cmd_guests(int argc, char **argv);
int cmd_doctor(int argc, char **argv);

#endif
