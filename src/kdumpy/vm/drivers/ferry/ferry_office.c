// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * ferry: a make-believe shipping line. It has a disk of its own (bio-based), files in
 * sysfs, a tree of voyages, a timer, delayed work on a work queue of its own, threads,
 * a notifier of network devices and calls to the other processor. A word written to
 * /sys/kernel/ferry/order makes one chosen thing go wrong.
 */
#include <linux/kobject.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/percpu.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "ferry.h"

struct ferry_line ferry_line;

struct ferry_voyage *ferry_plan(struct ferry_line *line, u64 hour)
{
	struct rb_node **at = &line->voyages.rb_node, *above = NULL;
	struct ferry_voyage *voyage = kmem_cache_zalloc(line->voyage_cache, GFP_KERNEL);

	if (!voyage)
		return NULL;
	voyage->hour = hour;
	while (*at) {
		above = *at;
		at = hour < rb_entry(above, struct ferry_voyage, node)->hour ? &above->rb_left : &above->rb_right;
	}
	rb_link_node(&voyage->node, above, at);
	rb_insert_color(&voyage->node, &line->voyages);
	return voyage;
}

static void ferry_tide(struct work_struct *work)
{
	struct ferry_line *line = container_of(to_delayed_work(work), struct ferry_line, tide);

	if (line->on_tide)
		line->on_tide(line);
	line->sum++;
}

static void ferry_whistle(struct timer_list *whistle)
{
	struct ferry_line *line = container_of(whistle, struct ferry_line, whistle);

	if (line->on_whistle)
		line->on_whistle(line);
	line->sum++;
}

void ferry_run_tide(struct ferry_line *line, void (*what)(struct ferry_line *))
{
	line->on_tide = what;
	queue_delayed_work(line->tides, &line->tide, HZ / 10);
}

void ferry_run_whistle(struct ferry_line *line, void (*what)(struct ferry_line *))
{
	line->on_whistle = what;
	mod_timer(&line->whistle, jiffies + HZ / 5);
}

void ferry_run_crew(struct ferry_line *line, int (*what)(void *))
{
	kthread_run(what, line, "ferry-crew/%llu", line->sum++);
}

static ssize_t order_store(struct kobject *object, struct kobj_attribute *file, const char *text, size_t count)
{
	const struct ferry_order *tables[] = { ferry_pointer_orders, ferry_wait_orders };
	const struct ferry_order *order;
	int i;

	for (i = 0; i < 2; i++)
		for (order = tables[i]; order->name; order++)
			if (sysfs_streq(order->name, text)) {
				order->run(&ferry_line, text);
				return count;
			}
	return -ENOENT;
}

static ssize_t load_show(struct kobject *object, struct kobj_attribute *file, char *page)
{
	return ferry_show_load(&ferry_line, page);
}

static ssize_t note_store(struct kobject *object, struct kobj_attribute *file, const char *text, size_t count)
{
	unsigned long address;

	if (kstrtoul(text, 0, &address))
		return -EINVAL;
	ferry_line.note = (const char __user *)address;
	return count;
}

static struct kobj_attribute ferry_order_file = __ATTR_WO(order);
static struct kobj_attribute ferry_load_file = __ATTR_RO(load);
static struct kobj_attribute ferry_note_file = __ATTR_WO(note);
static struct attribute *ferry_files[] = { &ferry_order_file.attr, &ferry_load_file.attr, &ferry_note_file.attr, NULL };
static const struct attribute_group ferry_group = { .attrs = ferry_files };

/* A network device that goes down is taken for the sinking of the ship. */
static noinline int ferry_net_event(struct notifier_block *block, unsigned long event, void *data)
{
	struct net_device *net = netdev_notifier_info_to_dev(data);

	if (ferry_line.sunk && event == NETDEV_DOWN)
		panic("ferry: the bridge does not answer on %s (state %lu)", net->name, event);
	return NOTIFY_DONE;
}

static struct notifier_block ferry_net_block = { .notifier_call = ferry_net_event };

/* Only good while the module loads: its memory is freed afterwards. */
static int __init noinline ferry_build_tables(struct ferry_line *line)
{
	line->speed = 12;
	line->distance = 36;
	return line->speed + line->distance;
}

static int __init ferry_init(void)
{
	struct ferry_line *line = &ferry_line;
	struct kobject *directory;
	int error;

	line->voyages = RB_ROOT;
	INIT_LIST_HEAD(&line->tickets);
	spin_lock_init(&line->quay);
	mutex_init(&line->cars);
	mutex_init(&line->trucks);
	mutex_init(&line->bikes);
	init_waitqueue_head(&line->pilot);
	INIT_DELAYED_WORK(&line->tide, ferry_tide);
	timer_setup(&line->whistle, ferry_whistle, 0);
	line->set_up = ferry_build_tables;
	line->set_up(line);
	error = init_srcu_struct(&line->routes);
	if (error)
		return error;
	line->passengers = alloc_percpu(u64);
	line->tides = alloc_workqueue("ferry_tides", WQ_UNBOUND | WQ_MEM_RECLAIM, 1);
	line->voyage_cache = kmem_cache_create("ferry_voyage", sizeof(struct ferry_voyage), 0, 0, NULL);
	directory = kobject_create_and_add("ferry", kernel_kobj);
	if (!line->passengers || !line->tides || !line->voyage_cache || !directory)
		return -ENOMEM;		/* a laboratory's driver: what it took stays taken */
	error = sysfs_create_group(directory, &ferry_group);
	if (!error)
		error = register_netdevice_notifier(&ferry_net_block);
	if (!error)
		error = ferry_disk_add(line);
	return error;
}

module_init(ferry_init);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("the kdumpy authors");
MODULE_VERSION("2.31");
MODULE_DESCRIPTION("Shipping line with faults to score a diagnosis by");
