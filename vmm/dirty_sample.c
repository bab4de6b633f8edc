/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gnomon/shadow_dirty.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"
#include "vmm/clock.h"
#include "vmm/dirty_sample.h"
#include "vmm/stats.h"

int dirty_sample_open(struct dirty_sample *dirty, const struct run_args *args)
{
	*dirty = (struct dirty_sample){.args = args, .fd = -1};
	if (!args->dirty_path)
		return 0;
	if (strcmp(args->dirty_path, "-") == 0)
		dirty->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
	else
		dirty->fd = open(args->dirty_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	return dirty->fd < 0 ? -errno : 0;
}

/* ---- the thread ---- */

static void sample(struct dirty_sample *dirty)
{
	int err = shadow_get_dirty_log(dirty->vm->shadow, VM_RAM_SLOT, dirty->bitmap);

	ASSERT(!err, "RAM is logged as long as the thread is there: %d", err);
	dirty_map_add(&dirty->map, dirty->bitmap, monotonic_ns() - dirty->start_ns);
}

static void sample_thread(void *arg)
{
	struct dirty_sample *dirty = arg;
	uint64_t interval = dirty->args->dirty_interval_ms * NSEC_PER_MSEC;
	uint64_t next = dirty->start_ns + interval;

	for (;;) {
		uint64_t now = monotonic_ns();
		bool stop;

		/* Rounded up. A look that came too late is not made up for. */
		stop = wait_event_timeout(dirty->wait, READ_ONCE(dirty->stop),
					  next > now ? (next - now) / NSEC_PER_MSEC + 1 : 0);
		sample(dirty);
		if (stop)
			return;
		next = max(next, monotonic_ns()) + interval;
	}
}

static void free_map(struct dirty_sample *dirty)
{
	kvfree(dirty->bitmap, shadow_dirty_words(dirty->map.npages) * sizeof(*dirty->bitmap));
	dirty_map_destroy(&dirty->map);
}

int dirty_sample_start(struct dirty_sample *dirty, struct vm *vm)
{
	uint64_t npages = vm->config.ram_bytes >> PAGE_SHIFT;
	int err;

	if (dirty->fd < 0)
		return 0;
	dirty->vm = vm;
	init_waitqueue_head(&dirty->wait);
	err = dirty_map_init(&dirty->map, npages);
	if (err)
		return err;
	dirty->bitmap = kvcalloc(shadow_dirty_words(npages), sizeof(*dirty->bitmap), GFP_KERNEL);
	if (!dirty->bitmap) {
		dirty_map_destroy(&dirty->map);
		return -ENOMEM;
	}
	err = vm_log_dirty(vm);
	if (err)
		goto free_map;
	dirty->start_ns = monotonic_ns();
	err = kthread_run(&dirty->thread, "dirty-log", sample_thread, dirty);
	if (err)
		goto free_map;
	dirty->sampled = true;
	return 0;

free_map:
	free_map(dirty);
	return err;
}

void dirty_sample_stop(struct dirty_sample *dirty)
{
	if (!dirty->sampled)
		return;
	WRITE_ONCE(dirty->stop, true);
	wake_up_all(&dirty->wait);
	kthread_join(&dirty->thread);
}

/* ---- the file ---- */

static int write_text(const struct dirty_sample *dirty, const struct dirty_map_title *title)
{
	size_t len;
	char *text;
	FILE *stream = open_memstream(&text, &len);
	int err = -ENOMEM;

	if (!stream)
		return -ENOMEM;
	dirty_map_text(&dirty->map, title, stream);
	if (!ferror(stream))
		err = 0;
	if (fclose(stream))
		err = -ENOMEM;
	if (!err)
		err = write_all(dirty->fd, text, len);
	free(text);
	return err;
}

static int write_json(const struct dirty_sample *dirty, const struct dirty_map_title *title)
{
	json_t *json = dirty_map_json(&dirty->map, title);
	/* One line: with 64 numbers in a row it is nothing to look at. */
	char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
	int err = -ENOMEM;

	if (text)
		err = write_all(dirty->fd, text, strlen(text));
	if (!err)
		err = write_all(dirty->fd, "\n", 1);
	free(text);
	json_decref(json);
	return err;
}

static int write_map(const struct dirty_sample *dirty)
{
	const struct run_args *args = dirty->args;
	const struct dirty_map_title title = {
		.guest = args->guest,
		.seed = args->seed,
		.interval_ms = args->dirty_interval_ms,
	};

	return args->dirty_json ? write_json(dirty, &title) : write_text(dirty, &title);
}

int dirty_sample_close(struct dirty_sample *dirty)
{
	int err = 0;

	if (dirty->fd < 0)
		return 0;
	if (dirty->sampled) {
		err = write_map(dirty);
		free_map(dirty);
	}
	if (close(dirty->fd) < 0 && !err)
		err = -errno;
	return err;
}
