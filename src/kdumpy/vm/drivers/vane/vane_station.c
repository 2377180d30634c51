// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * vane: a make-believe weather station. It has a character device, files in procfs and
 * debugfs, a radio (a network device with NAPI), timers, work, an interrupt and threads.
 * A word written to /dev/vane makes one chosen thing go wrong, there or at the next
 * event of some kind. Each fault is modelled on a published one of an upstream driver.
 */
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "vane.h"

struct vane_mast vane_mast = { .site = "NORTH-MAST-07", .pixel_clock = 0 };

static bool unplugged;
module_param(unplugged, bool, 0);
MODULE_PARM_DESC(unplugged, "the station is not there: loading fails");

static int vane_file_open(struct inode *inode, struct file *file)
{
	struct vane_mast *mast = &vane_mast;
	struct vane_guest *reader = kzalloc(sizeof(*reader), GFP_KERNEL);

	if (!reader)
		return -ENOMEM;
	refcount_set(&reader->users, 1);
	reader->channel = mast->channel;
	file->private_data = reader;
	mast->listener = reader;
	if (mast->on_open)
		mast->on_open(mast);
	mast->opened++;
	return 0;
}

static int vane_close(struct inode *inode, struct file *file)
{
	struct vane_mast *mast = &vane_mast;
	struct vane_guest *reader = file->private_data;

	mast->listener = NULL;
	if (mast->on_close)
		mast->on_close(mast, reader);
	kfree(reader);
	return 0;
}

static ssize_t vane_file_read(struct file *file, char __user *buffer, size_t count, loff_t *position)
{
	struct vane_mast *mast = &vane_mast;
	long answer = 0;

	if (mast->on_read)
		answer = mast->on_read(mast, file->private_data);
	mast->storms += answer;
	return 0;
}

static long vane_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct vane_mast *mast = &vane_mast;
	long answer = -ENOTTY;

	if (mast->on_ioctl)
		answer = mast->on_ioctl(mast, argument);
	mast->storms++;
	return answer;
}

static ssize_t vane_file_write(struct file *file, const char __user *buffer, size_t count, loff_t *position)
{
	const struct vane_case *tables[] = { vane_probe_cases, vane_object_cases, vane_radio_cases };
	const struct vane_case *one;
	char word[24] = "";
	int i;

	if (count >= sizeof(word) || copy_from_user(word, buffer, count))
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(tables); i++)
		for (one = tables[i]; one->name; one++)
			if (sysfs_streq(one->name, word)) {
				one->arm(&vane_mast);
				return count;
			}
	return -ENOENT;
}

static const struct file_operations vane_device_ops = {
	.owner = THIS_MODULE, .open = vane_file_open, .release = vane_close,
	.read = vane_file_read, .write = vane_file_write, .unlocked_ioctl = vane_ioctl,
};
static struct miscdevice vane_node = { .minor = MISC_DYNAMIC_MINOR, .name = "vane", .fops = &vane_device_ops };

/* After "drm/amdgpu: Fix a null pointer access when the smc_rreg pointer is NULL" (CVE-2023-52817). */
static ssize_t vane_registers_read(struct file *file, char __user *buffer, size_t count, loff_t *position)
{
	struct vane_mast *mast = &vane_mast;
	u32 value = mast->read_register(mast, *position >> 2);

	return put_user(value, (u32 __user *)buffer) ? -EFAULT : 0;
}

/* After "scsi: qedf: Do not touch __user pointer in qedf_dbg_stop_io_on_error_cmd_read() directly". */
static ssize_t vane_report_read(struct file *file, char __user *buffer, size_t count, loff_t *position)
{
	int bytes = sprintf((__force char *)buffer, "%s: %llu storms\n", vane_mast.site, vane_mast.storms);

	vane_mast.storms += bytes;
	return 0;
}

static const struct file_operations vane_registers_ops = {
	.owner = THIS_MODULE, .open = simple_open, .read = vane_registers_read,
};
static const struct file_operations vane_report_ops = {
	.owner = THIS_MODULE, .open = simple_open, .read = vane_report_read,
};

static int vane_proc_show(struct seq_file *file, void *data)
{
	struct vane_mast *mast = &vane_mast;

	if (mast->on_show)
		mast->on_show(mast, file);
	seq_printf(file, "%s\n", mast->site);
	return 0;
}

static void vane_soon(struct work_struct *work)
{
	struct vane_mast *mast = container_of(work, struct vane_mast, soon);

	if (mast->on_work)
		mast->on_work(mast);
	mast->storms++;
}

static void vane_later(struct work_struct *work)
{
	struct vane_mast *mast = container_of(to_delayed_work(work), struct vane_mast, later);

	if (mast->on_work)
		mast->on_work(mast);
	mast->storms++;
}

static void vane_gust_expired(struct timer_list *timer)
{
	struct vane_mast *mast = container_of(timer, struct vane_mast, gust);

	if (mast->on_gust)
		mast->on_gust(mast);
	mast->storms++;
}

static void vane_strike(struct irq_work *strike)
{
	struct vane_mast *mast = container_of(strike, struct vane_mast, strike);

	if (mast->on_strike)
		mast->on_strike(mast);
	mast->storms++;
}

/* After "drm/vkms: Fix null-ptr-deref in vkms_release()": the way out of a failed start frees what was not made. */
static noinline void vane_release_readings(struct vane_mast *mast)
{
	destroy_workqueue(mast->readings);
	mast->readings = NULL;
}

static struct dentry *vane_directory;

static int __init vane_init(void)
{
	struct vane_mast *mast = &vane_mast;
	int error = -ENODEV;

	INIT_LIST_HEAD(&mast->shelf);
	INIT_LIST_HEAD(&mast->surveys);
	mutex_init(&mast->firmware);
	INIT_WORK(&mast->soon, vane_soon);
	INIT_DELAYED_WORK(&mast->later, vane_later);
	timer_setup(&mast->gust, vane_gust_expired, 0);
	init_irq_work(&mast->strike, vane_strike);
	if (unplugged)
		goto fail;
	error = -ENOMEM;
	mast->readings = alloc_workqueue("vane_readings", WQ_UNBOUND, 0);
	mast->uplink = kzalloc(sizeof(*mast->uplink), GFP_KERNEL);
	mast->channel = kzalloc(sizeof(*mast->channel), GFP_KERNEL);
	mast->frame = vzalloc(2 * PAGE_SIZE);
	if (!mast->readings || !mast->uplink || !mast->channel || !mast->frame)
		goto fail;
	INIT_LIST_HEAD(&mast->uplink->peers);
	error = vane_radio_add(mast);
	if (error)
		goto fail;
	error = misc_register(&vane_node);
	if (error)
		goto fail;
	proc_create_single("vane", 0444, NULL, vane_proc_show);
	vane_directory = debugfs_create_dir("vane", NULL);
	debugfs_create_file("registers", 0400, vane_directory, mast, &vane_registers_ops);
	debugfs_create_file("report", 0400, vane_directory, mast, &vane_report_ops);
	return 0;
fail:
	vane_release_readings(mast);
	return error;
}

static void __exit vane_leave(void)
{
	struct vane_mast *mast = &vane_mast;

	debugfs_remove_recursive(vane_directory);
	remove_proc_entry("vane", NULL);
	misc_deregister(&vane_node);
	vane_radio_remove(mast);
	cancel_work_sync(&mast->soon);
	cancel_delayed_work_sync(&mast->later);
	vane_release_readings(mast);
	vfree(mast->frame);
	kfree(mast->channel);
	kfree(mast->uplink);
}

module_init(vane_init);
module_exit(vane_leave);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("the kdumpy authors");
MODULE_VERSION("4.2");
MODULE_DESCRIPTION("Weather station with faults to score a diagnosis by");
