// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* cellar: a make-believe store of wine; like attic, for faults of pointers and objects, of lists and operations. */
#include <linux/etherdevice.h>
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

static u64 cellar_total;

/* An entry was freed on its list; its place was given out anew, and cleared. */
struct cellar_taste {
	u64 years;
	u64 drunk;
};

struct cellar_guest {
	u64 came;
	char name[40];
	struct list_head seat;
	struct cellar_taste *likes;
};

static LIST_HEAD(cellar_seats);

static noinline u64 cellar_count_likes(struct list_head *seats)
{
	struct cellar_guest *guest;
	u64 sum = 0;

	list_for_each_entry(guest, seats, seat)
		sum += guest->likes->drunk;
	return sum;
}

static void cellar_guest_left(void)
{
	struct cellar_guest *guest = kzalloc(sizeof(*guest), GFP_KERNEL);
	static struct cellar_taste taste = { .years = 12 };

	if (!guest)
		return;
	guest->likes = &taste;
	list_add(&guest->seat, &cellar_seats);
	kfree(guest);
	if (kzalloc(sizeof(*guest), GFP_KERNEL))
		cellar_total += cellar_count_likes(&cellar_seats);
}

/* A network device whose operations lack the sending: what calls it is the kernel's own. */
static const struct net_device_ops cellar_link = { .ndo_validate_addr = eth_validate_addr };

static void cellar_setup(struct net_device *device)
{
	ether_setup(device);
	device->netdev_ops = &cellar_link;
	eth_hw_addr_random(device);
}

static void cellar_no_sending(void)
{
	struct net_device *device = alloc_netdev(64, "cellar%d", NET_NAME_UNKNOWN, cellar_setup);

	if (device && register_netdev(device))
		free_netdev(device);
}

/* A label is longer than its place, and runs over the function behind it. */
struct cellar_tap {
	char label[20];
	u32 size;
	int (*turn)(struct cellar_tap *tap);
	u64 turned;
};

static noinline void cellar_label_tap(struct cellar_tap *tap, const char *label)
{
	int i;

	for (i = 0; label[i]; i++)
		((volatile char *)tap)[i] = label[i];
}

static noinline int cellar_turn_tap(struct cellar_tap *tap)
{
	return tap->turn(tap) + tap->turned;
}

static void cellar_text_tap(void)
{
	struct cellar_tap *tap = kzalloc(sizeof(*tap), GFP_KERNEL);

	if (!tap)
		return;
	cellar_label_tap(tap, "the old tap beside the northern door, left");
	cellar_total += cellar_turn_tap(tap);
}

static const struct {
	const char *name;
	void (*run)(void);
} cellar_faults[] = {
	{ "guest-left", cellar_guest_left },
	{ "no-sending", cellar_no_sending },
	{ "text-tap", cellar_text_tap },
};

static ssize_t cellar_write(struct file *file, const char __user *buffer, size_t size, loff_t *position)
{
	char name[32];
	int number;

	if (size == 0 || size >= sizeof(name) || copy_from_user(name, buffer, size))
		return -EINVAL;
	name[size] = 0;
	strim(name);
	for (number = 0; number < ARRAY_SIZE(cellar_faults); number++)
		if (!strcmp(name, cellar_faults[number].name)) {
			cellar_faults[number].run();
			return size;
		}
	return -ENOENT;
}

static const struct file_operations cellar_operations = { .owner = THIS_MODULE, .write = cellar_write };
static struct miscdevice cellar_device = { .minor = MISC_DYNAMIC_MINOR, .name = "cellar", .fops = &cellar_operations };

module_misc_device(cellar_device);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A store of wine, with faults of lists and operations");
