/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * plugin_host PLUGIN...: a program that has never heard of gnomon opens a plugin that uses it, runs
 * its main() on a thread, and closes it before that thread has ended.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>

struct run {
	int (*entry)(void);
	int status;
	sem_t done, closed;
};

static void *run_plugin(void *arg)
{
	struct run *run = arg;

	run->status = run->entry();
	sem_post(&run->done);
	sem_wait(&run->closed);
	return NULL; /* where the library's destructor is called */
}

static int host(const char *path)
{
	struct run run = {.status = 1};
	pthread_t thread;
	void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!plugin) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	*(void **)&run.entry = dlsym(plugin, "main");
	sem_init(&run.done, 0, 0);
	sem_init(&run.closed, 0, 0);
	if (!run.entry || pthread_create(&thread, NULL, run_plugin, &run))
		return 1;
	sem_wait(&run.done);
	dlclose(plugin);
	sem_post(&run.closed);
	pthread_join(thread, NULL);
	return run.status;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (host(argv[i]))
			return 1;
	return argc < 2;
}
