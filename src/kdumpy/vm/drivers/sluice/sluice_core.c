// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * sluice: a make-believe spooler. It takes packets from a network device of its
 * own, queues them as parcels, and moves them on from a tasklet, a clock in
 * hard interrupt context, an interrupt with a thread, a work item and threads.
 * A word written to /dev/sluice makes one chosen thing go wrong.
 */
#include <linux/fs.h>
#include <linux/irq.h>
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "sluice.h"

struct sluice_gate sluice_gate;

struct sluice_parcel *sluice_new_parcel(struct sluice_gate *gate, unsigned int lane)
{
	struct sluice_parcel *parcel = kmem_cache_zalloc(gate->parcels, GFP_ATOMIC);

	if (!parcel)
		return NULL;
	parcel->serial = ++gate->serial;
	parcel->bytes = sizeof(parcel->payload);
	parcel->lane = lane;
	parcel->route = gate->lanes[lane];
	INIT_LIST_HEAD(&parcel->queued);
	return parcel;
}

static void sluice_pump(struct tasklet_struct *pump)
{
	struct sluice_gate *gate = container_of(pump, struct sluice_gate, pump);

	if (gate->on_softirq)
		gate->on_softirq(gate);
	gate->dropped++;
}

static enum hrtimer_restart sluice_clock(struct hrtimer *clock)
{
	struct sluice_gate *gate = container_of(clock, struct sluice_gate, clock);

	if (gate->on_irq_thread)
		generic_handle_irq(gate->irq);
	if (gate->on_hardirq)
		gate->on_hardirq(gate);
	hrtimer_forward_now(clock, ms_to_ktime(250));
	return HRTIMER_RESTART;
}

static irqreturn_t sluice_irq(int irq, void *data)
{
	struct sluice_gate *gate = data;

	gate->serial++;
	return IRQ_WAKE_THREAD;
}

static irqreturn_t sluice_irq_thread(int irq, void *data)
{
	struct sluice_gate *gate = data;

	if (gate->on_irq_thread)
		gate->on_irq_thread(gate);
	gate->serial++;
	return IRQ_HANDLED;
}

static void sluice_settle(struct work_struct *work)
{
	struct sluice_gate *gate = container_of(work, struct sluice_gate, settle);

	if (gate->on_work)
		gate->on_work(gate);
	gate->serial++;
}

static int sluice_thread(void *data)
{
	struct sluice_gate *gate = data;

	if (gate->on_thread)
		gate->on_thread(gate);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(HZ);
	return 0;
}

void sluice_run_softirq(struct sluice_gate *gate, void (*what)(struct sluice_gate *))
{
	gate->on_softirq = what;
	tasklet_schedule(&gate->pump);
}

void sluice_run_hardirq(struct sluice_gate *gate, void (*what)(struct sluice_gate *))
{
	gate->on_hardirq = what;
}

void sluice_run_irq_thread(struct sluice_gate *gate, void (*what)(struct sluice_gate *))
{
	gate->on_irq_thread = what;
}

void sluice_run_work(struct sluice_gate *gate, void (*what)(struct sluice_gate *))
{
	gate->on_work = what;
	schedule_work(&gate->settle);
}

void sluice_run_thread(struct sluice_gate *gate, void (*what)(struct sluice_gate *))
{
	gate->on_thread = what;
	kthread_run(sluice_thread, gate, "spool/%llu", gate->serial);
}

static ssize_t sluice_write(struct file *file, const char __user *buffer, size_t count, loff_t *position)
{
	const struct sluice_verb *tables[] = { sluice_flow_verbs, sluice_lock_verbs };
	const struct sluice_verb *verb;
	char word[24] = "";
	int i;

	if (count >= sizeof(word) || copy_from_user(word, buffer, count))
		return -EINVAL;
	for (i = 0; i < 2; i++)
		for (verb = tables[i]; verb->name; verb++)
			if (sysfs_streq(verb->name, word)) {
				verb->run(&sluice_gate, buffer);
				return count;
			}
	return -ENOENT;
}

static const struct file_operations sluice_file = { .owner = THIS_MODULE, .write = sluice_write };
static struct miscdevice sluice_misc = { .minor = MISC_DYNAMIC_MINOR, .name = "sluice", .fops = &sluice_file };

static int sluice_add_irq(struct sluice_gate *gate)
{
	gate->irq = irq_alloc_desc(NUMA_NO_NODE);
	if (gate->irq < 0)
		return gate->irq;
	irq_set_chip_and_handler(gate->irq, &dummy_irq_chip, handle_simple_irq);
	irq_modify_status(gate->irq, IRQ_NOREQUEST | IRQ_NOAUTOEN, IRQ_NOPROBE);
	return request_threaded_irq(gate->irq, sluice_irq, sluice_irq_thread, IRQF_ONESHOT, "sluice", gate);
}

static int sluice_add_lanes(struct sluice_gate *gate)
{
	unsigned int i;

	for (i = 0; i < SLUICE_LANES; i++) {
		struct sluice_lane *lane = kzalloc(sizeof(*lane), GFP_KERNEL);

		if (!lane)
			return -ENOMEM;
		lane->index = i;
		lane->weight = 10 * i;
		INIT_LIST_HEAD(&lane->parcels);
		kref_init(&lane->users);
		gate->lanes[i] = lane;
	}
	return 0;
}

static int __init sluice_init(void)
{
	struct sluice_gate *gate = &sluice_gate;
	int error;

	spin_lock_init(&gate->queue_lock);
	mutex_init(&gate->config);
	init_rwsem(&gate->map);
	sema_init(&gate->credits, 2);
	init_completion(&gate->drained);
	tasklet_setup(&gate->pump, sluice_pump);
	INIT_WORK(&gate->settle, sluice_settle);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	hrtimer_setup(&gate->clock, sluice_clock, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
#else
	hrtimer_init(&gate->clock, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	gate->clock.function = sluice_clock;
#endif
	gate->parcels = kmem_cache_create("sluice_parcel", sizeof(struct sluice_parcel), 0, SLAB_HWCACHE_ALIGN, NULL);
	if (!gate->parcels)
		return -ENOMEM;
	error = sluice_add_lanes(gate);
	if (!error)
		error = sluice_add_irq(gate);
	if (!error)
		error = sluice_net_add(gate);
	if (!error)
		error = misc_register(&sluice_misc);
	if (error)
		return error;		/* a laboratory's driver: what it took stays taken */
	hrtimer_start(&gate->clock, ms_to_ktime(250), HRTIMER_MODE_REL_HARD);
	return 0;
}

module_init(sluice_init);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("the kdumpy authors");
MODULE_VERSION("0.9");
MODULE_DESCRIPTION("Spooler with faults to score a diagnosis by");
