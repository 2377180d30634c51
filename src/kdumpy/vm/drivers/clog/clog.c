// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * clog: a make-believe mail sorter with one belt. Its first letter never
 * leaves the belt, and those behind it wait: an ordered work queue that stands
 * still, without anything that the kernel's own watchdogs would notice.
 */
#include <linux/completion.h>
#include <linux/module.h>
#include <linux/workqueue.h>

#define LETTERS 6

static struct workqueue_struct *belt;
static struct work_struct letters[LETTERS];
static DECLARE_COMPLETION(mended);

static noinline void clog_sort_letter(struct work_struct *work)
{
	wait_for_completion(&mended);
}

static int __init clog_init(void)
{
	int i;

	belt = alloc_ordered_workqueue("clog_belt", 0);
	if (!belt)
		return -ENOMEM;
	for (i = 0; i < LETTERS; i++) {
		INIT_WORK(&letters[i], clog_sort_letter);
		queue_work(belt, &letters[i]);
	}
	return 0;
}

module_init(clog_init);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("the kdumpy authors");
MODULE_VERSION("0.3");
MODULE_DESCRIPTION("Mail sorter that jams");
