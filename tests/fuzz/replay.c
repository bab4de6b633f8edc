/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A target of the fuzzer without the fuzzer: each file that is named, or lies in a folder that is
 * named, is one input. So what was found once stays a test of every build, with any compiler.
 *
 * Exit: 0 all inputs went well, 66 one cannot be read, or there is none. A finding ends the process
 * as it ends a fuzzer.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "tests/fuzz/bytes.h"

static unsigned int nr_inputs;

static void no_input(const char *path)
{
	fprintf(stderr, "fuzz: %s: %s\n", path, strerror(errno));
	exit(EX_NOINPUT);
}

/* Not a byte more than the file has: then a sanitizer sees who reads beyond. */
static void feed(const char *path, size_t size)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = malloc(size);

	if (!f || (size && !data) || fread(data, 1, size, f) != size)
		no_input(path);
	fclose(f);
	/* The last line before a crash says where. */
	printf("%s\n", path);
	fflush(stdout);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	nr_inputs++;
}

static void feed_all(const char *path)
{
	struct dirent **names;
	struct stat st;
	int nr;

	if (stat(path, &st))
		no_input(path);
	if (!S_ISDIR(st.st_mode)) {
		feed(path, st.st_size);
		return;
	}
	nr = scandir(path, &names, NULL, alphasort);
	if (nr < 0)
		no_input(path);
	for (int i = 0; i < nr; i++) {
		char file[PATH_MAX];

		snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
		if (names[i]->d_name[0] != '.' && !stat(file, &st) && S_ISREG(st.st_mode))
			feed(file, st.st_size);
		free(names[i]);
	}
	free(names);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		feed_all(argv[i]);
	if (!nr_inputs) {
		fprintf(stderr, "fuzz: no input\n");
		return EX_NOINPUT;
	}
	printf("%u inputs\n", nr_inputs);
	return EX_OK;
}
