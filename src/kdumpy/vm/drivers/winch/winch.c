// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * winch: a make-believe winch whose code waits, forgets and piles up where no lock's
 * word and no stack names who is to blame: for a timer's function, for an answer, for
 * a reader, for a lock that somebody left. A word written to /dev/winch makes it.
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

struct winch_load {
	u32 tons;
	u32 number;
	struct mutex lock;
	char owner[28];
};

struct winch {
	char serial[28];
	int stopping;
	int never;
	u64 turns;
	spinlock_t gears;
	spinlock_t rope;
	struct timer_list motor;
	struct timer_list brake;
	struct mutex hook;
	struct completion lifted;
	struct work_struct lift;
	struct work_struct weigh;
	wait_queue_head_t idle;
	struct winch_load *load;
	int *plan;
};

struct winch_turn {
	struct list_head list;
	u64 when;
	char text[150];
};

static struct winch *winch;
static struct kmem_cache *winch_turns;
static LIST_HEAD(winch_log);
static struct timer_list winch_clock;

static void winch_on(unsigned int cpu, int (*what)(void *), struct winch *w, const char *name)
{
	struct task_struct *task = kthread_create(what, w, "%s", name);

	if (IS_ERR(task))
		return;
	kthread_bind(task, cpu);
	wake_up_process(task);
}

/* The motor's timer is stopped with the lock that its function takes. */
static void winch_motor_tick(struct timer_list *timer)
{
	struct winch *w = container_of(timer, struct winch, motor);

	if (w->stopping)
		mdelay(200);
	spin_lock(&w->gears);
	w->turns++;
	spin_unlock(&w->gears);
	mod_timer(timer, jiffies + 1);
}

static int winch_stop_motor(void *data)
{
	struct winch *w = data;

	msleep(300);
	spin_lock_bh(&w->gears);
	w->stopping = 1;
	mdelay(100);
	timer_delete_sync(&w->motor);
	spin_unlock_bh(&w->gears);
	return 0;
}

static void winch_timer_locked(struct winch *w)
{
	w->motor.expires = jiffies + 10;
	add_timer_on(&w->motor, 1);
	winch_on(0, winch_stop_motor, w, "winch_stop");
}

/* The brake's timer waits for the end of its own function. The calls are jumps: it has no frame. */
static void winch_release(struct winch *w)
{
	w->stopping = 0;
	timer_delete_sync(&w->brake);
}

static void winch_brake_tick(struct timer_list *timer)
{
	struct winch *w = container_of(timer, struct winch, brake);

	if (++w->turns > 3)
		winch_release(w);
	else
		mod_timer(timer, jiffies + 5);
}

static void winch_timer_itself(struct winch *w)
{
	mod_timer(&w->brake, jiffies + 10);
}

/* A CPU holds the rope with its interrupts off; another one asks it to count. */
static int winch_hold_rope(void *data)
{
	struct winch *w = data;
	unsigned long flags;

	msleep(200);
	spin_lock_irqsave(&w->rope, flags);
	while (!READ_ONCE(w->never))
		cpu_relax();
	spin_unlock_irqrestore(&w->rope, flags);
	return 0;
}

static void winch_count(void *data)
{
	((struct winch *)data)->turns++;
}

static int winch_ask(void *data)
{
	msleep(500);
	smp_call_function_single(1, winch_count, data, 1);
	return 0;
}

static void winch_deaf_cpu(struct winch *w)
{
	winch_on(1, winch_hold_rope, w, "winch_rope");
	winch_on(0, winch_ask, w, "winch_ask");
}

/* A reader of the plan sleeps under RCU. */
static noinline void winch_read_plan(struct winch *w)
{
	int *plan;

	rcu_read_lock();
	plan = rcu_dereference(w->plan);
	if (plan)
		wait_event(w->idle, READ_ONCE(w->never));
	rcu_read_unlock();
}

static int winch_reader(void *data)
{
	winch_read_plan(data);
	return 0;
}

static int winch_new_plan(void *data)
{
	msleep(300);
	synchronize_rcu();
	return 0;
}

static void winch_sleeping_plan(struct winch *w)
{
	kthread_run(winch_reader, w, "winch_reader");
	kthread_run(winch_new_plan, w, "winch_plan");
}

/* Who is to tell that the load is up wants the hook first, which the one who waits for that keeps. */
static void winch_lift_work(struct work_struct *work)
{
	struct winch *w = container_of(work, struct winch, lift);

	msleep(100);
	mutex_lock(&w->hook);
	w->turns++;
	mutex_unlock(&w->hook);
	complete(&w->lifted);
}

static noinline int winch_lift(void *data)
{
	struct winch *w = data;

	mutex_lock(&w->hook);
	schedule_work(&w->lift);
	wait_for_completion(&w->lifted);
	mutex_unlock(&w->hook);
	return 0;
}

static void winch_answer_locked(struct winch *w)
{
	kthread_run(winch_lift, w, "winch_lift");
}

/* A process that lives on has left the lock of a load; another one reads it. */
static noinline int winch_set_load(struct winch_load *load, u32 tons)
{
	mutex_lock(&load->lock);
	if (tons > load->tons)
		return -ERANGE;
	load->tons = tons;
	mutex_unlock(&load->lock);
	return 0;
}

static noinline u32 winch_show_load(struct winch_load *load)
{
	u32 tons;

	mutex_lock(&load->lock);
	tons = load->tons;
	mutex_unlock(&load->lock);
	return tons;
}

/* A work returns with a spinlock. */
static void winch_weigh_work(struct work_struct *work)
{
	struct winch *w = container_of(work, struct winch, weigh);

	spin_lock(&w->rope);
	if (++w->turns > w->stopping)
		return;
	spin_unlock(&w->rope);
}

static void winch_kept_spinlock(struct winch *w)
{
	schedule_work(&w->weigh);
}

/* A timer logs what nobody will read, and takes what it can get; a process asks for more when nothing is left. */
static noinline void winch_log_turn(u64 number)
{
	struct winch_turn *turn = kmem_cache_alloc(winch_turns, GFP_ATOMIC | __GFP_NOWARN);

	if (!turn)
		return;
	turn->when = number;
	list_add(&turn->list, &winch_log);
}

static void winch_clock_tick(struct timer_list *timer)
{
	int i;

	for (i = 0; i < 4000; i++)
		winch_log_turn(i);
	mod_timer(timer, jiffies + 2);
}

static void winch_endless_log(struct winch *w)
{
	timer_setup(&winch_clock, winch_clock_tick, 0);
	mod_timer(&winch_clock, jiffies + 1);
}

/* The last one called is not the one that takes the stack up. */
static noinline int winch_label(char *out, int depth)
{
	char line[3900];
	int length = snprintf(line, sizeof(line), "%*d %pI6c %s", depth, depth, out, out);

	memcpy(out, line, 10);
	return length + line[depth];
}

static noinline int winch_draw(char *out, int depth)
{
	char page[9500];
	int i, length = 0;

	memset(page, depth, sizeof(page));
	for (i = 0; i < 3; i++)
		length += winch_label(page + i, depth) + page[depth * 7];
	memcpy(out, page, 16);
	return length;
}

static noinline int winch_frame(int depth)
{
	char rim[1800];

	memset(rim, depth, sizeof(rim));
	return winch_draw(rim, depth) + rim[depth + 3];
}

static void winch_large_frames(struct winch *w)
{
	w->turns += winch_frame(5);
}

/* A page of a file stays locked by one who sleeps; who truncates the file knows nothing of the module. */
static noinline int winch_pin_page(void *data)
{
	struct winch *w = data;
	struct file *file = filp_open("/data/messages", O_RDWR, 0);
	struct folio *folio;

	if (IS_ERR(file))
		return 0;
	folio = read_mapping_folio(file->f_mapping, 0, file);
	if (IS_ERR(folio))
		return 0;
	folio_lock(folio);
	wait_event_idle(w->idle, READ_ONCE(w->never));
	folio_unlock(folio);
	folio_put(folio);
	return 0;
}

static void winch_pinned_page(struct winch *w)
{
	kthread_run(winch_pin_page, w, "winch_pin");
}

static const struct {
	const char *word;
	void (*run)(struct winch *w);
} winch_words[] = {
	{ "timer-locked", winch_timer_locked },
	{ "timer-itself", winch_timer_itself },
	{ "deaf-cpu", winch_deaf_cpu },
	{ "sleeping-plan", winch_sleeping_plan },
	{ "answer-locked", winch_answer_locked },
	{ "kept-spinlock", winch_kept_spinlock },
	{ "endless-log", winch_endless_log },
	{ "large-frames", winch_large_frames },
	{ "pinned-page", winch_pinned_page },
};

static ssize_t winch_write(struct file *file, const char __user *buffer, size_t count, loff_t *position)
{
	char word[20] = "";
	u32 tons;
	size_t i;
	int error;

	if (count >= sizeof(word) || copy_from_user(word, buffer, count))
		return -EINVAL;
	if (!kstrtou32(word, 0, &tons)) {
		error = winch_set_load(winch->load, tons);
		return error ? error : count;
	}
	for (i = 0; i < ARRAY_SIZE(winch_words); i++)
		if (sysfs_streq(winch_words[i].word, word)) {
			winch_words[i].run(winch);
			return count;
		}
	return -ENOENT;
}

static ssize_t winch_read(struct file *file, char __user *buffer, size_t count, loff_t *position)
{
	return winch_show_load(winch->load) > 1000 ? -EIO : 0;
}

static const struct file_operations winch_file = { .owner = THIS_MODULE, .write = winch_write, .read = winch_read };
static struct miscdevice winch_misc = { .minor = MISC_DYNAMIC_MINOR, .name = "winch", .fops = &winch_file };

static int __init winch_init(void)
{
	struct winch *w = kzalloc(sizeof(*w), GFP_KERNEL);

	winch = w;
	winch_turns = KMEM_CACHE(winch_turn, SLAB_RECLAIM_ACCOUNT);
	if (!w || !winch_turns)
		return -ENOMEM;
	w->load = kzalloc(sizeof(*w->load), GFP_KERNEL);
	w->plan = kzalloc(sizeof(*w->plan), GFP_KERNEL);
	if (!w->load || !w->plan)
		return -ENOMEM;
	w->load->tons = 40;
	mutex_init(&w->load->lock);
	mutex_init(&w->hook);
	spin_lock_init(&w->gears);
	spin_lock_init(&w->rope);
	timer_setup(&w->motor, winch_motor_tick, 0);
	timer_setup(&w->brake, winch_brake_tick, 0);
	init_completion(&w->lifted);
	init_waitqueue_head(&w->idle);
	INIT_WORK(&w->lift, winch_lift_work);
	INIT_WORK(&w->weigh, winch_weigh_work);
	return misc_register(&winch_misc);
}

module_init(winch_init);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("the kdumpy authors");
MODULE_VERSION("1.0");
MODULE_DESCRIPTION("Winch that waits for whom nothing names");
