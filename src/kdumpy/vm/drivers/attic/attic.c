// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* attic: a make-believe store of old things. A name written to /dev/attic is a fault of a pointer or of an object. */
#include <linux/crc32.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/interrupt.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/seqlock.h>
#include <linux/slab.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

struct attic_lid {
	u32 hinges;
	u32 turns;
};

struct attic_box {
	u64 serial;
	u32 weight;
	u8 state;
	char label[19];
	struct list_head shelf;
	struct attic_lid *lid;
};

static struct workqueue_struct *attic_chores;
static struct kmem_cache *attic_bottles;
static struct attic_lid attic_lid = { .hinges = 2 };

/* A list that was never made an empty one: its first entry is NULL, less where the link lies in an entry. */
struct attic_room {
	u64 number;
	char name[32];
	struct list_head boxes;
	struct work_struct count;
	u64 weight;
};

static noinline u64 attic_count_boxes(struct attic_room *room)
{
	struct attic_box *box;
	u64 weight = 0;

	list_for_each_entry(box, &room->boxes, shelf)
		weight += box->weight;
	return weight;
}

static void attic_count_work(struct work_struct *work)
{
	struct attic_room *room = container_of(work, struct attic_room, count);

	room->weight += attic_count_boxes(room);
}

static void attic_empty_head(void)
{
	struct attic_room *room = kzalloc(sizeof(*room), GFP_KERNEL);

	if (!room)
		return;
	INIT_WORK(&room->count, attic_count_work);
	queue_work(attic_chores, &room->count);
}

/* A length out of what was freed: the kernel's own function runs on to where no memory is. */
struct attic_letter {
	u64 date;
	u32 bytes;
	u32 stamps;
	u8 *text;
};

static noinline u32 attic_checksum(struct attic_letter *letter, u8 *text)
{
	return crc32_le(~0, text, letter->bytes) ^ letter->stamps;
}

static void attic_freed_length(void)
{
	struct attic_letter *letter = kzalloc(sizeof(*letter), GFP_KERNEL);
	u8 *text = kzalloc(96, GFP_KERNEL);

	if (!letter || !text)
		return;
	letter->bytes = 96;
	kfree(letter);
	attic_lid.turns += attic_checksum(letter, text);
}

/* A byte out of what was freed chooses an entry of a table, far behind those that are set. */
static struct attic_lid *attic_states[200] = { &attic_lid, &attic_lid, &attic_lid };

static noinline u32 attic_describe(struct attic_box *box)
{
	return attic_states[box->state]->hinges * 2;
}

static void attic_freed_state(void)
{
	struct attic_box *box = kzalloc(sizeof(*box), GFP_KERNEL);

	if (!box)
		return;
	box->state = 1;
	kfree(box);
	attic_lid.turns += attic_describe(box);
}

/* A member that nobody has set: what slub_debug=P fills free objects with is still there. */
static noinline u32 attic_close_lid(struct attic_box *box)
{
	return box->lid->hinges + box->weight;
}

static void attic_unset_lid(void)
{
	struct attic_box *box = kmalloc(sizeof(*box), GFP_KERNEL);

	if (!box)
		return;
	box->serial = 7;
	box->weight = 12;
	attic_lid.turns += attic_close_lid(box);
	kfree(box);
}

/* An object was freed, and its place is a text's now. */
struct attic_tenant {
	u64 rent;
	u64 since;
	struct attic_lid *door;
	u64 paid[9];
};

static noinline void attic_evict_tenant(struct attic_tenant *tenant)
{
	attic_lid.turns += 2;
	kfree(tenant);
}

static noinline u32 attic_visit_tenant(struct attic_tenant *tenant)
{
	return tenant->door->hinges + tenant->rent;
}

static void attic_new_tenant(void)
{
	struct attic_tenant *tenant = kzalloc(sizeof(*tenant), GFP_KERNEL);
	char *sign;

	if (!tenant)
		return;
	tenant->door = &attic_lid;
	attic_evict_tenant(tenant);
	sign = kstrdup("for sale: three rooms with a view of the river, no stairs, but a ladder of good rope and wood",
		       GFP_KERNEL);
	attic_lid.turns += attic_visit_tenant(tenant);
	kfree(sign);
}

/* Work without a function, in an object of its own: only the kernel's code runs. */
struct attic_errand {
	u64 number;
	const char *goal;
	struct attic_lid *lid;
	struct work_struct run;
};

static void attic_null_errand(void)
{
	struct attic_errand *errand = kzalloc(sizeof(*errand), GFP_KERNEL);

	if (!errand)
		return;
	errand->goal = "fetch the ladder";
	errand->lid = &attic_lid;
	INIT_WORK(&errand->run, NULL);
	queue_work(attic_chores, &errand->run);
}

/* A timer's function leaves with the lock; the kernel warns when it has returned. */
static DEFINE_SPINLOCK(attic_dust_lock);

static void attic_dust_tick(struct timer_list *timer)
{
	spin_lock(&attic_dust_lock);
	if (attic_lid.turns < 1000)
		return;
	spin_unlock(&attic_dust_lock);
}

static DEFINE_TIMER(attic_dust_timer, attic_dust_tick);

static void attic_kept_dust(void)
{
	mod_timer(&attic_dust_timer, jiffies + HZ / 5);
}

/* A pointer is kept in 32 bits. */
struct attic_card {
	u32 box;
	u32 shelf;
};

static noinline u64 attic_fetch_box(struct attic_card *card)
{
	struct attic_box *box = (struct attic_box *)(unsigned long)card->box;

	return box->serial + card->shelf;
}

static void attic_cut_pointer(void)
{
	struct attic_box *box = kzalloc(sizeof(*box), GFP_KERNEL);
	struct attic_card card = { .box = (u32)(unsigned long)box, .shelf = 3 };

	attic_lid.turns += attic_fetch_box(&card);
	kfree(box);
}

/* A sequence counter in what was freed: it says for ever that somebody writes. */
struct attic_dial {
	seqcount_t turning;
	u32 hours;
	u64 minutes;
	u64 marks[8];
};

static noinline u64 attic_read_dial(struct attic_dial *dial)
{
	unsigned int seen;
	u64 minutes;

	do {
		seen = read_seqcount_begin(&dial->turning);
		minutes = dial->hours * 60 + dial->minutes;
	} while (read_seqcount_retry(&dial->turning, seen));
	return minutes;
}

static void attic_freed_dial(void)
{
	struct attic_dial *dial = kzalloc(sizeof(*dial), GFP_KERNEL);

	if (!dial)
		return;
	kfree(dial);
	attic_lid.turns += attic_read_dial(dial);
}

/* A tasklet in what was freed: only the kernel's code runs, and nothing but the cache tells whose it was. */
struct attic_bottle {
	u64 year;
	u64 notes[4];
	struct tasklet_struct pour;
	u64 glasses;
};

static void attic_pour(struct tasklet_struct *tasklet)
{
	struct attic_bottle *bottle = from_tasklet(bottle, tasklet, pour);

	bottle->glasses++;
}

static noinline void attic_break_bottle(struct attic_bottle *bottle)
{
	kmem_cache_free(attic_bottles, bottle);
	attic_lid.turns++;
}

static void attic_spilt(void)
{
	struct attic_bottle *bottle = kmem_cache_zalloc(attic_bottles, GFP_KERNEL);

	if (!bottle)
		return;
	tasklet_setup(&bottle->pour, attic_pour);
	local_bh_disable();
	tasklet_schedule(&bottle->pour);
	attic_break_bottle(bottle);
	local_bh_enable();
}

/* A timer in what was freed: only the kernel's code runs, and a variable of the driver still points there. */
struct attic_lamp {
	u64 watts;
	struct timer_list off;
	u64 burnt[20];
};

static struct attic_lamp *attic_lamp;

static void attic_lamp_off(struct timer_list *timer)
{
	container_of(timer, struct attic_lamp, off)->watts = 0;
}

static noinline void attic_sell_lamp(struct attic_lamp *lamp)
{
	kfree(lamp);
	attic_lid.turns += 5;
}

static void attic_lost_lamp(void)
{
	attic_lamp = kzalloc(sizeof(*attic_lamp), GFP_KERNEL);
	if (!attic_lamp)
		return;
	timer_setup(&attic_lamp->off, attic_lamp_off, 0);
	mod_timer(&attic_lamp->off, jiffies + HZ / 4);
	attic_sell_lamp(attic_lamp);
}

/* Work that still waits for its turn, in what was freed: the queue's own code takes it up. */
struct attic_chest {
	u64 locks;
	char owner[40];
	struct work_struct airing;
	u64 aired[3];
};

static void attic_air_chest(struct work_struct *work)
{
	container_of(work, struct attic_chest, airing)->aired[0]++;
}

static void attic_long_chore(struct work_struct *work)
{
	msleep(600);
}

static DECLARE_WORK(attic_sweeping, attic_long_chore);

static noinline void attic_drop_chest(struct attic_chest *chest)
{
	attic_lid.hinges++;
	kfree(chest);
}

static void attic_late_airing(void)
{
	struct attic_chest *chest = kzalloc(sizeof(*chest), GFP_KERNEL);

	if (!chest)
		return;
	INIT_WORK(&chest->airing, attic_air_chest);
	queue_work(attic_chores, &attic_sweeping);
	queue_work(attic_chores, &chest->airing);
	attic_drop_chest(chest);
}

/* A file whose operations lack one: what calls it is the kernel's own. */
static void *attic_list_start(struct seq_file *file, loff_t *position)
{
	return *position ? NULL : &attic_lid;
}

static void *attic_list_next(struct seq_file *file, void *item, loff_t *position)
{
	(*position)++;
	return NULL;
}

static void attic_list_stop(struct seq_file *file, void *item)
{
	attic_lid.turns++;
}

static const struct seq_operations attic_list = {
	.start = attic_list_start, .next = attic_list_next, .stop = attic_list_stop,
};

static void attic_no_show(void)
{
	proc_create_seq("attic", 0444, NULL, &attic_list);
}

static const struct {
	const char *name;
	void (*run)(void);
} attic_faults[] = {
	{ "empty-head", attic_empty_head },
	{ "freed-length", attic_freed_length },
	{ "freed-state", attic_freed_state },
	{ "unset-lid", attic_unset_lid },
	{ "new-tenant", attic_new_tenant },
	{ "null-errand", attic_null_errand },
	{ "kept-dust", attic_kept_dust },
	{ "cut-pointer", attic_cut_pointer },
	{ "freed-dial", attic_freed_dial },
	{ "spilt", attic_spilt },
	{ "lost-lamp", attic_lost_lamp },
	{ "late-airing", attic_late_airing },
	{ "no-show", attic_no_show },
};

static ssize_t attic_write(struct file *file, const char __user *buffer, size_t size, loff_t *position)
{
	char name[32];
	int number;

	if (size == 0 || size >= sizeof(name) || copy_from_user(name, buffer, size))
		return -EINVAL;
	name[size] = 0;
	strim(name);
	for (number = 0; number < ARRAY_SIZE(attic_faults); number++)
		if (!strcmp(name, attic_faults[number].name)) {
			attic_faults[number].run();
			return size;
		}
	return -ENOENT;
}

static const struct file_operations attic_operations = { .owner = THIS_MODULE, .write = attic_write };
static struct miscdevice attic_device = { .minor = MISC_DYNAMIC_MINOR, .name = "attic", .fops = &attic_operations };

static int __init attic_init(void)
{
	attic_chores = alloc_ordered_workqueue("attic", 0);
	attic_bottles = kmem_cache_create("attic_bottle", sizeof(struct attic_bottle), 0, 0, NULL);
	if (!attic_chores || !attic_bottles)
		return -ENOMEM;
	return misc_register(&attic_device);
}

static void __exit attic_exit(void)
{
	misc_deregister(&attic_device);
	destroy_workqueue(attic_chores);
	kmem_cache_destroy(attic_bottles);
}

module_init(attic_init);
module_exit(attic_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A store of old things, with faults of pointers and objects");
