// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The disk: what is read from it is zero, and some requests go under. */
#include <linux/blkdev.h>

#include "ferry.h"

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
static void ferry_submit_bio(struct bio *bio)
{
	struct ferry_line *line = bio->bi_bdev->bd_disk->private_data;

	if (line->on_bio)
		line->on_bio(line, bio);
	if (line->keep_bio)
		return;
	if (bio_op(bio) == REQ_OP_READ)
		zero_fill_bio(bio);
	bio_endio(bio);
}

static const struct block_device_operations ferry_disk_ops = {
	.owner = THIS_MODULE,
	.submit_bio = ferry_submit_bio,
};

int ferry_disk_add(struct ferry_line *line)
{
	struct gendisk *disk;
	int major = register_blkdev(0, "ferry");

	if (major < 0)
		return major;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
	disk = blk_alloc_disk(NULL, NUMA_NO_NODE);
	if (IS_ERR(disk))
		return PTR_ERR(disk);
#else
	disk = blk_alloc_disk(NUMA_NO_NODE);
	if (!disk)
		return -ENOMEM;
#endif
	disk->major = major;
	disk->first_minor = 0;
	disk->minors = 1;
	disk->fops = &ferry_disk_ops;
	disk->private_data = line;
	strscpy(disk->disk_name, "ferry0", sizeof(disk->disk_name));
	set_capacity(disk, 2048);
	return add_disk(disk);
}
#else
int ferry_disk_add(struct ferry_line *line)
{
	return 0;
}
#endif
