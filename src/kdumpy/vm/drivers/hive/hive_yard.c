// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * hive: a make-believe apiary. It has a character device, a network device, a module
 * parameter, work, timers, an interrupt and threads. A word written to /dev/hive makes
 * one chosen thing go wrong, there or at the next event of some kind. Each fault is
 * modelled on a published one of upstream Linux, which is named before it.
 */
#include <linux/etherdevice.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "hive.h"

struct hive_apiary hive_apiary;

/* After "RDMA/srpt: Support specifying the srpt_service_guid parameter" (CVE-2024-26744): nothing sets it. */
static int hive_crest_text(char *buffer, const struct kernel_param *parameter)
{
	return sysfs_emit(buffer, "%08x\n", *(u32 *)parameter->arg);
}

module_param_call(crest, NULL, hive_crest_text, &hive_apiary.crest, 0444);
MODULE_PARM_DESC(crest, "the apiary's mark");

static ssize_t hive_entrance_read(struct file *file, char __user *buffer, size_t count, loff_t *position)
{
	struct hive_apiary *apiary = &hive_apiary;

	if (apiary->on_look)
		apiary->on_look(apiary);
	apiary->honey++;
	return 0;
}

static long hive_entrance_smoke(struct file *file, unsigned int command, unsigned long argument)
{
	struct hive_apiary *apiary = &hive_apiary;

	if (apiary->on_smoke)
		apiary->on_smoke(apiary);
	apiary->honey++;
	return -ENOTTY;
}

static int hive_entrance_close(struct inode *inode, struct file *file)
{
	struct hive_apiary *apiary = &hive_apiary;

	if (apiary->on_dusk)
		apiary->on_dusk(apiary);
	apiary->honey++;
	return 0;
}

static ssize_t hive_take_word(struct file *file, const char __user *buffer, size_t count, loff_t *position)
{
	const struct hive_mishap *shelves[] = { hive_nectar_mishaps, hive_comb_mishaps, hive_swarm_mishaps };
	const struct hive_mishap *mishap;
	char word[24] = "";
	int i;

	if (count >= sizeof(word) || copy_from_user(word, buffer, count))
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(shelves); i++)
		for (mishap = shelves[i]; mishap->name; mishap++)
			if (sysfs_streq(mishap->name, word)) {
				mishap->happen(&hive_apiary);
				return count;
			}
	return -ENOENT;
}

static const struct file_operations hive_entrance_calls = {
	.owner = THIS_MODULE, .read = hive_entrance_read, .write = hive_take_word, .release = hive_entrance_close,
	.unlocked_ioctl = hive_entrance_smoke,
};
static struct miscdevice hive_entrance = { .minor = MISC_DYNAMIC_MINOR, .name = "hive", .fops = &hive_entrance_calls };

static void hive_run_errand(struct work_struct *work)
{
	struct hive_apiary *apiary = container_of(work, struct hive_apiary, errand);

	if (apiary->on_errand)
		apiary->on_errand(apiary);
	apiary->honey++;
}

static void hive_do_chore(struct work_struct *work)
{
	struct hive_apiary *apiary = container_of(to_delayed_work(work), struct hive_apiary, chore);

	if (apiary->on_chore)
		apiary->on_chore(apiary);
	apiary->honey++;
}

static void hive_waggle(struct timer_list *timer)
{
	struct hive_apiary *apiary = container_of(timer, struct hive_apiary, dance);

	if (apiary->on_dance)
		apiary->on_dance(apiary);
	apiary->honey++;
}

static void hive_hum(struct irq_work *buzz)
{
	struct hive_apiary *apiary = container_of(buzz, struct hive_apiary, buzz);

	if (apiary->on_buzz)
		apiary->on_buzz(apiary);
	apiary->honey++;
}

static netdev_tx_t hive_lane_send(struct sk_buff *skb, struct net_device *net)
{
	struct hive_apiary *apiary = &hive_apiary;

	if (apiary->on_flight)
		apiary->on_flight(apiary, skb);
	else
		dev_kfree_skb_any(skb);
	apiary->honey++;
	return NETDEV_TX_OK;
}

static const struct net_device_ops hive_lane_calls = {
	.ndo_start_xmit = hive_lane_send, .ndo_validate_addr = eth_validate_addr,
};

static void hive_lane_shape(struct net_device *net)
{
	ether_setup(net);
	net->netdev_ops = &hive_lane_calls;
	net->flags |= IFF_NOARP;
	eth_hw_addr_random(net);
}

static int __init hive_spring(void)
{
	struct hive_apiary *apiary = &hive_apiary;
	int error;

	spin_lock_init(&apiary->lid);
	INIT_LIST_HEAD(&apiary->pantry);
	INIT_LIST_HEAD(&apiary->stragglers);
	init_completion(&apiary->home);
	INIT_WORK(&apiary->errand, hive_run_errand);
	INIT_DELAYED_WORK(&apiary->chore, hive_do_chore);
	timer_setup(&apiary->dance, hive_waggle, 0);
	init_irq_work(&apiary->buzz, hive_hum);
	apiary->lane = alloc_netdev(0, "hive%d", NET_NAME_UNKNOWN, hive_lane_shape);
	if (!apiary->lane)
		return -ENOMEM;
	error = register_netdev(apiary->lane);
	if (!error)
		error = misc_register(&hive_entrance);
	return error;			/* a laboratory's driver: what it took stays taken */
}

static void __exit hive_autumn(void)
{
	struct hive_apiary *apiary = &hive_apiary;

	misc_deregister(&hive_entrance);
	if (apiary->on_leave)
		apiary->on_leave(apiary);
	cancel_work_sync(&apiary->errand);
	cancel_delayed_work_sync(&apiary->chore);
	unregister_netdev(apiary->lane);
	free_netdev(apiary->lane);
}

module_init(hive_spring);
module_exit(hive_autumn);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("the kdumpy authors");
MODULE_VERSION("6.1");
MODULE_DESCRIPTION("Apiary with faults to score a diagnosis by");
