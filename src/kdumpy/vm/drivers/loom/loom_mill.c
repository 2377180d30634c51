// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * loom: a make-believe weaving mill. It has a character device that can be mapped, a
 * file in procfs, two in sysfs, a network device, work, timers, an interrupt and
 * threads. A word written to /dev/loom makes one chosen thing go wrong, there or at
 * the next event of some kind. Each fault is modelled on a published one of upstream
 * Linux, which is named before it.
 */
#include <linux/delay.h>
#include <linux/etherdevice.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "loom.h"

struct loom_mill loom_mill;

static unsigned int dawdle;
module_param(dawdle, uint, 0);
MODULE_PARM_DESC(dawdle, "milliseconds between the file in procfs and what it shows");

static ssize_t loom_device_read(struct file *file, char __user *buffer, size_t count, loff_t *position)
{
	struct loom_mill *mill = &loom_mill;

	if (mill->at_read)
		mill->at_read(mill, file);
	mill->yards++;
	return 0;
}

static long loom_device_query(struct file *file, unsigned int command, unsigned long argument)
{
	struct loom_mill *mill = &loom_mill;

	if (mill->at_query)
		mill->at_query(mill);
	mill->yards++;
	return -ENOTTY;
}

static int loom_device_close(struct inode *inode, struct file *file)
{
	struct loom_mill *mill = &loom_mill;

	if (mill->at_close)
		mill->at_close(mill);
	mill->yards++;
	return 0;
}

static int loom_device_map(struct file *file, struct vm_area_struct *vma)
{
	vma->vm_ops = &loom_yarn_mapping;
	return 0;
}

static ssize_t loom_take_order(struct file *file, const char __user *buffer, size_t count, loff_t *position)
{
	const struct loom_weave *books[] = { loom_yarn_orders, loom_cloth_orders, loom_jam_orders };
	const struct loom_weave *order;
	char word[24] = "";
	int i;

	if (count >= sizeof(word) || copy_from_user(word, buffer, count))
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(books); i++)
		for (order = books[i]; order->name; order++)
			if (sysfs_streq(order->name, word)) {
				order->weave(&loom_mill);
				return count;
			}
	return -ENOENT;
}

static const struct file_operations loom_device_calls = {
	.owner = THIS_MODULE, .read = loom_device_read, .write = loom_take_order, .release = loom_device_close,
	.unlocked_ioctl = loom_device_query, .mmap = loom_device_map,
};
static struct miscdevice loom_porch = { .minor = MISC_DYNAMIC_MINOR, .name = "loom", .fops = &loom_device_calls };

/* After "ipv6: sr: fix possible use-after-free and null-ptr-deref" (CVE-2024-26735): who asks comes before the data. */
static noinline u64 loom_jacquard_size(struct loom_mill *mill)
{
	return mill->jacquard->length * mill->jacquard->rows;
}

static int loom_jacquard_show(struct seq_file *file, void *data)
{
	seq_printf(file, "%llu holes\n", loom_jacquard_size(&loom_mill));
	return 0;
}

static void loom_at_shift(struct work_struct *work)
{
	struct loom_mill *mill = container_of(work, struct loom_mill, shift);

	if (mill->at_shift)
		mill->at_shift(mill);
	mill->yards++;
}

static void loom_at_overtime(struct work_struct *work)
{
	struct loom_mill *mill = container_of(to_delayed_work(work), struct loom_mill, overtime);

	if (mill->at_shift)
		mill->at_shift(mill);
	mill->yards++;
}

static void loom_at_whistle(struct timer_list *timer)
{
	struct loom_mill *mill = container_of(timer, struct loom_mill, whistle);

	if (mill->at_whistle)
		mill->at_whistle(mill);
	mill->yards++;
}

static void loom_at_snap(struct irq_work *snap)
{
	struct loom_mill *mill = container_of(snap, struct loom_mill, snap);

	if (mill->at_snap)
		mill->at_snap(mill);
	mill->yards++;
}

static netdev_tx_t loom_belt_send(struct sk_buff *skb, struct net_device *net)
{
	struct loom_mill *mill = &loom_mill;

	if (mill->at_belt)
		mill->at_belt(mill, skb);
	else
		dev_kfree_skb_any(skb);
	mill->yards++;
	return NETDEV_TX_OK;
}

static const struct net_device_ops loom_belt_calls = {
	.ndo_start_xmit = loom_belt_send, .ndo_validate_addr = eth_validate_addr,
};

static void loom_belt_shape(struct net_device *net)
{
	ether_setup(net);
	net->netdev_ops = &loom_belt_calls;
	net->flags |= IFF_NOARP;
	eth_hw_addr_random(net);
}

static int __init loom_begin(void)
{
	struct loom_mill *mill = &loom_mill;
	int error;

	INIT_LIST_HEAD(&mill->panels);
	mutex_init(&mill->floor);
	mutex_init(&mill->dye);
	spin_lock_init(&mill->spindle);
	rwlock_init(&mill->rooms);
	INIT_WORK(&mill->shift, loom_at_shift);
	INIT_DELAYED_WORK(&mill->overtime, loom_at_overtime);
	timer_setup(&mill->whistle, loom_at_whistle, 0);
	init_irq_work(&mill->snap, loom_at_snap);
	proc_create_single("loom", 0444, NULL, loom_jacquard_show);
	if (dawdle)
		msleep(dawdle);
	mill->jacquard = kzalloc(sizeof(*mill->jacquard), GFP_KERNEL);
	mill->weaver = kzalloc(sizeof(*mill->weaver), GFP_KERNEL);
	mill->card = kzalloc(256, GFP_KERNEL);
	mill->belt = alloc_netdev(0, "loom%d", NET_NAME_UNKNOWN, loom_belt_shape);
	mill->office = kobject_create_and_add("loom", kernel_kobj);
	if (!mill->jacquard || !mill->weaver || !mill->card || !mill->belt || !mill->office)
		return -ENOMEM;		/* a laboratory's driver: what it took stays taken */
	error = register_netdev(mill->belt);
	if (!error)
		error = sysfs_create_file(mill->office, &loom_unbind.attr);
	if (!error)
		error = sysfs_create_file(mill->office, &loom_authorize.attr);
	if (!error)
		error = misc_register(&loom_porch);
	return error;
}

static void __exit loom_end(void)
{
	struct loom_mill *mill = &loom_mill;

	misc_deregister(&loom_porch);
	if (mill->at_exit)
		mill->at_exit(mill);
	remove_proc_entry("loom", NULL);
	cancel_work_sync(&mill->shift);
	cancel_delayed_work_sync(&mill->overtime);
	unregister_netdev(mill->belt);
	free_netdev(mill->belt);
	kobject_put(mill->office);
	kfree(mill->card);
	kfree(mill->weaver);
	kfree(mill->jacquard);
}

module_init(loom_begin);
module_exit(loom_end);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("the kdumpy authors");
MODULE_VERSION("5.1");
MODULE_DESCRIPTION("Weaving mill with faults to score a diagnosis by");
