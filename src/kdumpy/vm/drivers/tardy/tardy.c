// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * tardy: a make-believe tape robot in which everybody waits for somebody. A
 * word written to /dev/tardy makes one chosen wait last for ever, or one CPU
 * spin, or memory go page by page.
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/rwsem.h>
#include <linux/semaphore.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

struct robot {
	u64 moves;
	char serial[24];
	struct semaphore drives;	/* one for each drive that is free */
	struct completion tape_in;
	struct rw_semaphore catalog;
	struct workqueue_struct *queue;
	struct work_struct rewind;
	spinlock_t arm;
	spinlock_t door;
	int jammed;
};

static struct robot robot = { .serial = "T-1000", .jammed = 1 };

/* A drive is taken by a thread that then waits for ever for its tape. */
static noinline int tardy_load_tape(void *data)
{
	struct robot *r = data;

	down(&r->drives);
	while (READ_ONCE(r->jammed))
		schedule_timeout_idle(HZ);
	up(&r->drives);
	return 0;
}

static noinline int tardy_clean_drive(void *data)
{
	struct robot *r = data;

	msleep(400);
	down(&r->drives);
	r->moves++;
	up(&r->drives);
	return 0;
}

static void tardy_semaphore(struct robot *r)
{
	kthread_run(tardy_load_tape, r, "tardy_load");
	kthread_run(tardy_clean_drive, r, "tardy_clean");
}

/* Nobody says that the tape is in. */
static noinline int tardy_await_tape(void *data)
{
	struct robot *r = data;

	wait_for_completion(&r->tape_in);
	r->moves++;
	return 0;
}

static void tardy_completion(struct robot *r)
{
	kthread_run(tardy_await_tape, r, "tardy_mount");
}

/* The work that is flushed waits for ever. */
static noinline void tardy_rewind(struct work_struct *work)
{
	struct robot *r = container_of(work, struct robot, rewind);

	while (READ_ONCE(r->jammed))
		schedule_timeout_idle(HZ);
	r->moves++;
}

static noinline int tardy_eject(void *data)
{
	struct robot *r = data;

	queue_work(r->queue, &r->rewind);
	msleep(200);
	flush_work(&r->rewind);
	r->moves++;
	return 0;
}

static void tardy_flush(struct robot *r)
{
	kthread_run(tardy_eject, r, "tardy_eject");
}

/* The first reader keeps the catalog; the last one gave it back long ago, and its name still stands in the lock. */
static noinline int tardy_browse(void *data)
{
	struct robot *r = data;

	down_read(&r->catalog);
	while (READ_ONCE(r->jammed))
		schedule_timeout_idle(HZ);
	up_read(&r->catalog);
	return 0;
}

static noinline int tardy_look_up(void *data)
{
	struct robot *r = data;

	msleep(200);
	down_read(&r->catalog);
	r->moves++;
	msleep(100);
	up_read(&r->catalog);
	while (READ_ONCE(r->jammed))
		schedule_timeout_idle(HZ);
	return 0;
}

static noinline int tardy_enter_tape(void *data)
{
	struct robot *r = data;

	msleep(600);
	down_write(&r->catalog);
	r->moves++;
	up_write(&r->catalog);
	return 0;
}

static void tardy_readers(struct robot *r)
{
	kthread_run(tardy_browse, r, "tardy_browse");
	kthread_run(tardy_look_up, r, "tardy_lookup");
	kthread_run(tardy_enter_tape, r, "tardy_enter");
}

static void tardy_on(unsigned int cpu, int (*what)(void *), struct robot *r, const char *name)
{
	struct task_struct *task = kthread_create(what, r, "%s", name);

	if (IS_ERR(task))
		return;
	kthread_bind(task, cpu);
	wake_up_process(task);
}

/* The arm then the door on one CPU, the door then the arm on the other. */
static noinline int tardy_move_arm(void *data)
{
	struct robot *r = data;

	msleep(100);
	spin_lock(&r->arm);
	mdelay(300);
	spin_lock(&r->door);
	r->moves++;
	spin_unlock(&r->door);
	spin_unlock(&r->arm);
	return 0;
}

static noinline int tardy_open_door(void *data)
{
	struct robot *r = data;

	msleep(100);
	spin_lock(&r->door);
	mdelay(300);
	spin_lock(&r->arm);
	r->moves++;
	spin_unlock(&r->arm);
	spin_unlock(&r->door);
	return 0;
}

static void tardy_spin_crossed(struct robot *r)
{
	tardy_on(0, tardy_move_arm, r, "tardy_arm");
	tardy_on(1, tardy_open_door, r, "tardy_door");
}

/* One CPU waits for a bit with the arm's lock, the other one for that lock. */
static noinline void tardy_wait_sensor(struct robot *r)
{
	while (READ_ONCE(r->jammed))
		cpu_relax();
}

static noinline int tardy_grip(void *data)
{
	struct robot *r = data;

	msleep(100);
	spin_lock(&r->arm);
	tardy_wait_sensor(r);
	spin_unlock(&r->arm);
	return 0;
}

static noinline int tardy_park(void *data)
{
	struct robot *r = data;

	msleep(300);
	spin_lock(&r->arm);
	r->moves++;
	spin_unlock(&r->arm);
	return 0;
}

static void tardy_spin_held(struct robot *r)
{
	tardy_on(0, tardy_grip, r, "tardy_grip");
	tardy_on(1, tardy_park, r, "tardy_park");
}

/* Buffers are taken from the page allocator itself and forgotten. */
static noinline struct page *tardy_take_buffer(struct robot *r)
{
	struct page *page = alloc_pages(GFP_KERNEL, 2);

	if (page)
		r->moves++;
	return page;
}

static noinline int tardy_fill_buffers(void *data)
{
	while (tardy_take_buffer(data))
		cond_resched();
	return 0;
}

static void tardy_leak_pages(struct robot *r)
{
	kthread_run(tardy_fill_buffers, r, "tardy_fill");
}

static const struct {
	const char *word;
	void (*run)(struct robot *r);
} tardy_words[] = {
	{ "semaphore", tardy_semaphore },
	{ "completion", tardy_completion },
	{ "work-flush", tardy_flush },
	{ "rwsem-readers", tardy_readers },
	{ "spin-crossed", tardy_spin_crossed },
	{ "spin-held", tardy_spin_held },
	{ "leak-pages", tardy_leak_pages },
};

static ssize_t tardy_write(struct file *file, const char __user *buffer, size_t count, loff_t *position)
{
	char word[20] = "";
	size_t i;

	if (count >= sizeof(word) || copy_from_user(word, buffer, count))
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(tardy_words); i++)
		if (sysfs_streq(tardy_words[i].word, word)) {
			tardy_words[i].run(&robot);
			return count;
		}
	return -ENOENT;
}

static const struct file_operations tardy_file = { .owner = THIS_MODULE, .write = tardy_write };
static struct miscdevice tardy_misc = { .minor = MISC_DYNAMIC_MINOR, .name = "tardy", .fops = &tardy_file };

static int __init tardy_init(void)
{
	sema_init(&robot.drives, 1);
	init_completion(&robot.tape_in);
	init_rwsem(&robot.catalog);
	spin_lock_init(&robot.arm);
	spin_lock_init(&robot.door);
	INIT_WORK(&robot.rewind, tardy_rewind);
	robot.queue = alloc_workqueue("tardy", WQ_UNBOUND, 1);
	return robot.queue ? misc_register(&tardy_misc) : -ENOMEM;
}

module_init(tardy_init);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("the kdumpy authors");
MODULE_VERSION("1.4");
MODULE_DESCRIPTION("Tape robot in which everybody waits");
