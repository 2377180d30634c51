// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * points: a make-believe signal box. It has a character device, a file in sysfs, a
 * network device, a work queue of its own, a tasklet and an interrupt. A word written
 * to /dev/points makes one chosen wait or loop never end, there or at the next event
 * of some kind. Each fault is modelled on a published one of an upstream driver.
 */
#include <linux/etherdevice.h>
#include <linux/fs.h>
#include <linux/kobject.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/uaccess.h>

#include "points.h"

struct points_box points_box;

static ssize_t points_file_read(struct file *file, char __user *buffer, size_t count, loff_t *position)
{
	struct points_box *box = &points_box;

	if (box->on_read)
		box->on_read(box);
	box->trains++;
	return 0;
}

static long points_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct points_box *box = &points_box;

	if (box->on_ioctl)
		box->on_ioctl(box);
	box->trains++;
	return -ENOTTY;
}

static ssize_t points_file_write(struct file *file, const char __user *buffer, size_t count, loff_t *position)
{
	const struct points_move *move;
	char word[24] = "";

	if (count >= sizeof(word) || copy_from_user(word, buffer, count))
		return -EINVAL;
	for (move = points_moves; move->name; move++)
		if (sysfs_streq(move->name, word)) {
			move->make(&points_box);
			return count;
		}
	return -ENOENT;
}

static const struct file_operations points_device_ops = {
	.owner = THIS_MODULE, .read = points_file_read, .write = points_file_write, .unlocked_ioctl = points_ioctl,
};
static struct miscdevice points_node = { .minor = MISC_DYNAMIC_MINOR, .name = "points", .fops = &points_device_ops };

static void points_signal(struct work_struct *work)
{
	struct points_box *box = container_of(work, struct points_box, signal);

	if (box->on_signal)
		box->on_signal(box);
	box->trains++;
}

static void points_relay(struct tasklet_struct *relay)
{
	struct points_box *box = container_of(relay, struct points_box, relay);

	if (box->on_relay)
		box->on_relay(box);
	box->trains++;
}

static void points_chip(struct irq_work *chip)
{
	struct points_box *box = container_of(chip, struct points_box, chip);

	if (box->on_chip)
		box->on_chip(box);
	box->trains++;
}

static struct kobject *points_directory;

static ssize_t points_retire_store(struct kobject *object, struct kobj_attribute *file, const char *text, size_t count);

static struct kobj_attribute points_retire = __ATTR(retire, 0200, NULL, points_retire_store);

/* After "scsi: core: Avoid that SCSI device removal through sysfs triggers a deadlock": a file removes itself. */
static noinline ssize_t points_retire_store(struct kobject *object, struct kobj_attribute *file, const char *text,
					    size_t count)
{
	sysfs_remove_file(object, &points_retire.attr);
	points_box.trains = 0;
	return count;
}

static netdev_tx_t points_line_xmit(struct sk_buff *skb, struct net_device *net)
{
	dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops points_line_ops = {
	.ndo_open = points_line_open, .ndo_start_xmit = points_line_xmit,
};

static void points_line_setup(struct net_device *net)
{
	ether_setup(net);
	net->netdev_ops = &points_line_ops;
	eth_hw_addr_random(net);
}

static int __init points_init(void)
{
	struct points_box *box = &points_box;
	int error;

	mutex_init(&box->interlock);
	init_rwsem(&box->timetable);
	spin_lock_init(&box->levers);
	init_waitqueue_head(&box->bell);
	init_completion(&box->crossing_closed);
	INIT_WORK(&box->signal, points_signal);
	tasklet_setup(&box->relay, points_relay);
	init_irq_work(&box->chip, points_chip);
	box->signals = alloc_workqueue("points_signals", WQ_UNBOUND, 0);
	box->line = alloc_netdev(0, "pts%d", NET_NAME_ENUM, points_line_setup);
	points_directory = kobject_create_and_add("points", kernel_kobj);
	if (!box->signals || !box->line || !points_directory)
		return -ENOMEM;		/* a laboratory's driver: what it took stays taken */
	error = register_netdev(box->line);
	if (!error)
		error = sysfs_create_file(points_directory, &points_retire.attr);
	if (!error)
		error = misc_register(&points_node);
	return error;
}

module_init(points_init);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("the kdumpy authors");
MODULE_VERSION("1.7");
MODULE_DESCRIPTION("Signal box with faults to score a diagnosis by");
