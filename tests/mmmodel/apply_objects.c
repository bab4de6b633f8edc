/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Objects, with and without a file below: how they come and go, holes, and what is in the file.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/mmmodel/world.h"

static void file_io(int fd, int page, int word, uint64_t *value, bool write)
{
	off_t at = (off_t)(page * PAGE_SIZE + word_offset(word));
	ssize_t n = write ? pwrite(fd, value, sizeof(*value), at)
			  : pread(fd, value, sizeof(*value), at);

	if (n != (ssize_t)sizeof(*value))
		differ("a file of ours cannot be %s", write ? "written" : "read");
}

/* A file with something in each page. */
static void create_file(struct mobject *object)
{
	object->fd = memfd_create("mmmodel", MFD_CLOEXEC);
	if (object->fd < 0 || ftruncate(object->fd, (off_t)(object->nr_pages * PAGE_SIZE)))
		differ("no file");
	for (int page = 0; page < object->nr_pages; page++) {
		object->file[page][1] = 1000 + page;
		file_io(object->fd, page, 1, &object->file[page][1], true);
	}
}

static void check_file(const struct mobject *object)
{
	for (int page = 0; page < object->nr_pages; page++) {
		for (int word = 0; word < NR_WORDS; word++) {
			uint64_t found;

			file_io(object->fd, page, word, &found, false);
			if (found != object->file[page][word])
				differ("word %d of page %d of a file is %#llx, not %#llx", word,
				       page, (unsigned long long)found,
				       (unsigned long long)object->file[page][word]);
		}
	}
}

static void free_object(struct mobject *object)
{
	if (object->fd >= 0)
		close(object->fd);
	free(object);
}

void check_closed_files(struct world *w)
{
	while (w->closed) {
		struct mobject *object = w->closed;

		w->closed = object->next_closed;
		if (object->fd >= 0)
			check_file(object);
		free_object(object);
	}
}

static struct mobject *new_object(struct world *w, int nr_pages, bool file)
{
	struct mobject *object = calloc(1, sizeof(*object));
	int ret = 0;

	if (!object)
		abort();
	*object = (struct mobject){.nr_pages = nr_pages, .held = true, .fd = -1};
	if (file) {
		create_file(object);
		ret = address_space_create_file(w->phys, object->fd, nr_pages, &object->real);
	} else {
		object->real = address_space_create(w->phys, nr_pages);
		ret = object->real ? 0 : -ENOMEM;
	}
	if (!ret)
		return object;
	if (!gave_up(w, ret))
		differ("object: returned %d", ret);
	free_object(object);
	return NULL;
}

/*
 * object: the slot; what is there is let go of. nr: the pages of a new one; 0: none. flags: with a
 * file.
 */
bool apply_object(struct world *w, const struct op *op)
{
	int slot = op->object - 1;
	struct mobject *object;

	if (slot < 0 || slot >= NR_OBJECTS || op->nr < 0 || op->nr > MAX_OBJECT_PAGES)
		return false;
	object = w->object[slot];
	w->object[slot] = NULL;
	if (object) {
		address_space_put(object->real);
		object->held = false;
		let_go_of_object(w, object);
	}
	if (op->nr)
		w->object[slot] = new_object(w, op->nr, op->flags);
	return true;
}

static struct mobject *object_of(const struct world *w, const struct op *op)
{
	if (op->object < 1 || op->object > NR_OBJECTS || op->pgoff < 0 || op->nr < 0)
		return NULL;
	return w->object[op->object - 1];
}

/* object, and nr pages of it from pgoff on. */
bool apply_punch(struct world *w, const struct op *op)
{
	struct mobject *object = object_of(w, op);
	int ret;

	if (!object)
		return false;
	ret = address_space_punch_hole(object->real, op->pgoff, op->nr);
	if (op->pgoff + op->nr > object->nr_pages) {
		expect_result(op, ret, -EINVAL);
		return true;
	}
	expect_result(op, ret, 0);
	punch(w, object, op->pgoff, op->nr);
	return true;
}

/* The same. */
bool apply_sync(struct world *w, const struct op *op)
{
	struct mobject *object = object_of(w, op);
	long ret;

	if (!object)
		return false;
	ret = address_space_sync(object->real, op->pgoff, op->nr);
	if (op->pgoff + op->nr > object->nr_pages) {
		expect_result(op, ret, -EINVAL);
		return true;
	}
	expect_result(op, ret, sync_object(object, op->pgoff, op->nr));
	if (object->fd >= 0)
		check_file(object);
	return true;
}
