// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/interrupt.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/percpu.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/etherdevice.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

struct cellar_cork {
	u64 drawn;
	struct hlist_node link;
};

struct cellar_bottle {
	u64 year;
	struct cellar_cork *cork;
	u64 notes[4];
	struct tasklet_struct pour;
	u64 more[6];
};

static struct kmem_cache *cellar_bottles;
static u64 cellar_total;
static HLIST_HEAD(cellar_corks);

/* taken off its list twice */
static noinline void cellar_draw(struct cellar_cork *cork)
{
	hlist_del(&cork->link);
	cork->drawn++;
}

static void cellar_drawn_twice(void)
{
	struct cellar_cork *cork = kzalloc(sizeof(*cork), GFP_KERNEL);

	if (!cork)
		return;
	hlist_add_head(&cork->link, &cellar_corks);
	cellar_draw(cork);
	cellar_draw(cork);
}

/* per-CPU counters of what was freed */
struct cellar_rack {
	u64 number;
	u64 rows;
	u64 __percpu *taken;
	u64 spare[4];
};

static noinline u64 cellar_sum_rack(struct cellar_rack *rack)
{
	u64 sum = 0;
	int cpu;

	for_each_online_cpu(cpu)
		sum += *per_cpu_ptr(rack->taken, cpu);
	return sum;
}

static void cellar_freed_rack(void)
{
	struct cellar_rack *rack = kzalloc(sizeof(*rack), GFP_KERNEL);

	if (!rack)
		return;
	rack->taken = alloc_percpu(u64);
	kfree(rack);
	cellar_total += cellar_sum_rack(rack);
}

/* text over a function */
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

/* own cache, tasklet, poison only */
static void cellar_pour(struct tasklet_struct *tasklet)
{
	struct cellar_bottle *bottle = from_tasklet(bottle, tasklet, pour);

	bottle->year++;
}

static noinline void cellar_break(struct cellar_bottle *bottle)
{
	kmem_cache_free(cellar_bottles, bottle);
	cellar_total += 3;
}

static void cellar_spilt(void)
{
	struct cellar_bottle *bottle = kmem_cache_zalloc(cellar_bottles, GFP_KERNEL);

	if (!bottle)
		return;
	tasklet_setup(&bottle->pour, cellar_pour);
	local_bh_disable();
	tasklet_schedule(&bottle->pour);
	cellar_break(bottle);
	local_bh_enable();
}

/* sysfs of a kobject that is freed */
struct cellar_shelf {
	u64 width;
	struct kobject kobj;
	u64 load;
};

static ssize_t cellar_load_show(struct kobject *kobj, struct kobj_attribute *attribute, char *buffer)
{
	return sprintf(buffer, "%llu\n", container_of(kobj, struct cellar_shelf, kobj)->load);
}

static struct kobj_attribute cellar_load = __ATTR(load, 0444, cellar_load_show, NULL);
static void cellar_shelf_release(struct kobject *kobj) { cellar_total++; }
static struct kobj_type cellar_shelf_type = { .release = cellar_shelf_release, .sysfs_ops = &kobj_sysfs_ops };

static noinline void cellar_burn_shelf(struct cellar_shelf *shelf)
{
	cellar_total += 5;
	kfree(shelf);
}

static void cellar_burnt_shelf(void)
{
	struct cellar_shelf *shelf = kzalloc(sizeof(*shelf), GFP_KERNEL);

	if (!shelf || kobject_init_and_add(&shelf->kobj, &cellar_shelf_type, kernel_kobj, "cellar_shelf"))
		return;
	if (sysfs_create_file(&shelf->kobj, &cellar_load.attr))
		return;
	cellar_burn_shelf(shelf);
}

/* a queue that was destroyed */
static struct workqueue_struct *cellar_chores;
static void cellar_chore(struct work_struct *work) { cellar_total++; }
static DECLARE_WORK(cellar_work, cellar_chore);
static void cellar_late_tick(struct timer_list *timer);
static DEFINE_TIMER(cellar_timer, cellar_late_tick);
static void cellar_late_tick(struct timer_list *timer)
{
	queue_work(cellar_chores, &cellar_work);
	cellar_total += 2;
}

static void cellar_destroyed_queue(void)
{
	cellar_chores = alloc_workqueue("cellar", 0, 0);
	if (!cellar_chores)
		return;
	mod_timer(&cellar_timer, jiffies + HZ);
	destroy_workqueue(cellar_chores);
}

/* callback of RCU of a module that is gone */
static void cellar_gone(struct rcu_head *head) { cellar_total++; }
static struct rcu_head cellar_head;

static void cellar_gone_callback(void)
{
	struct rcu_head *head = kzalloc(sizeof(*head), GFP_KERNEL);

	if (head)
		call_rcu(head, cellar_gone);
}

/* a stack that is gone */
static int *cellar_answer;
static int cellar_asker(void *data)
{
	int answer = 3;

	cellar_answer = &answer;
	msleep(20);
	return answer;
}

static noinline int cellar_read_answer(void)
{
	return *cellar_answer + 1;
}

static void cellar_gone_stack(void)
{
	int i;

	for (i = 0; i < 8; i++)
		kthread_run(cellar_asker, NULL, "cellar_ask%d", i);
	msleep(1500);
	cellar_total += cellar_read_answer();
}

/* put twice, with poison: the kernel's own words about it are poison, too */
static noinline void cellar_put_shelf(struct kobject *kobj)
{
	kobject_put(kobj);
	cellar_total += 7;
}

static void cellar_shelf_free(struct kobject *kobj) { kfree(container_of(kobj, struct cellar_shelf, kobj)); }
static struct kobj_type cellar_free_type = { .release = cellar_shelf_free, .sysfs_ops = &kobj_sysfs_ops };

static void cellar_put_twice(void)
{
	struct cellar_shelf *shelf = kzalloc(sizeof(*shelf), GFP_KERNEL);

	if (!shelf || kobject_init_and_add(&shelf->kobj, &cellar_free_type, kernel_kobj, "cellar_free"))
		return;
	cellar_put_shelf(&shelf->kobj);
	cellar_put_shelf(&shelf->kobj);
	cellar_put_shelf(&shelf->kobj);
}

/* a NULL entry within an array, given to a function of the kernel */
static noinline void cellar_name_all(char **names, int count, char *out)
{
	int i;

	for (i = 0; i < count; i++)
		strcat(out, names[i]);
}

static void cellar_no_name(void)
{
	static char *names[4] = { "a", "b", NULL, "c" };
	char *out = kzalloc(4000, GFP_KERNEL);

	if (out)
		cellar_name_all(names, 4, out);
}

/* an index that went negative: an unsigned one of 32 bits */
static u64 cellar_years[16];

static noinline u64 cellar_year_before(u32 index)
{
	return cellar_years[index - 1];
}

static void cellar_before_first(void)
{
	cellar_total += cellar_year_before(cellar_total == 12345);
}

/* a list whose entry was freed, with no poison, and given out anew and cleared */
struct cellar_guest {
	u64 came;
	char name[40];
	struct list_head seat;
	struct cellar_cork *likes;
};

static LIST_HEAD(cellar_seats);

static noinline u64 cellar_count_likes(struct list_head *seats)
{
	struct cellar_guest *guest;
	u64 sum = 0;

	list_for_each_entry(guest, seats, seat)
		sum += guest->likes->drawn;
	return sum;
}

static void cellar_guest_left(void)
{
	struct cellar_guest *guest = kzalloc(sizeof(*guest), GFP_KERNEL);
	struct cellar_cork *cork = kzalloc(sizeof(*cork), GFP_KERNEL);

	if (!guest || !cork)
		return;
	guest->likes = cork;
	list_add(&guest->seat, &cellar_seats);
	kfree(guest);
	guest = kzalloc(sizeof(*guest), GFP_KERNEL);
	cellar_total += cellar_count_likes(&cellar_seats);
}

/* what has no release */
static void cellar_no_release(void)
{
	struct device *device = kzalloc(sizeof(*device), GFP_KERNEL);

	if (!device)
		return;
	device_initialize(device);
	dev_set_name(device, "cellar-rack");
	if (!device_add(device)) {
		device_del(device);
		put_device(device);
	}
}

/* vfree of what lies inside */
static noinline void cellar_drop_ledger(void *ledger)
{
	vfree(ledger + 64);
	cellar_total += 11;
}

static void cellar_inner_vfree(void)
{
	void *ledger = vmalloc(8192);

	if (ledger)
		cellar_drop_ledger(ledger);
}

/* operations that are not there */
static void *cellar_start(struct seq_file *file, loff_t *position) { return *position ? NULL : &cellar_total; }
static void *cellar_next(struct seq_file *file, void *item, loff_t *position) { (*position)++; return NULL; }
static void cellar_stop(struct seq_file *file, void *item) { cellar_total++; }
static const struct seq_operations cellar_list = { .start = cellar_start, .next = cellar_next, .stop = cellar_stop };

static void cellar_no_show(void)
{
	proc_create_seq("cellar", 0444, NULL, &cellar_list);
}

static const struct net_device_ops cellar_link = { .ndo_validate_addr = eth_validate_addr };
static void cellar_setup(struct net_device *device) { ether_setup(device); device->netdev_ops = &cellar_link; eth_hw_addr_random(device); }

static void cellar_no_xmit(void)
{
	struct net_device *device = alloc_netdev(64, "cellar%d", NET_NAME_UNKNOWN, cellar_setup);

	if (device && register_netdev(device))
		free_netdev(device);
}

static const struct {
	const char *name;
	void (*run)(void);
} cellar_faults[] = {
	{ "no-show", cellar_no_show }, { "no-xmit", cellar_no_xmit },
	{ "drawn-twice", cellar_drawn_twice }, { "freed-rack", cellar_freed_rack }, { "text-tap", cellar_text_tap },
	{ "spilt", cellar_spilt }, { "burnt-shelf", cellar_burnt_shelf }, { "destroyed-queue", cellar_destroyed_queue },
	{ "gone-callback", cellar_gone_callback }, { "gone-stack", cellar_gone_stack }, { "put-twice", cellar_put_twice },
	{ "no-name", cellar_no_name }, { "before-first", cellar_before_first }, { "guest-left", cellar_guest_left },
	{ "no-release", cellar_no_release }, { "inner-vfree", cellar_inner_vfree },
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

static int __init cellar_init(void)
{
	cellar_bottles = kmem_cache_create("cellar_bottle", sizeof(struct cellar_bottle), 0, 0, NULL);
	if (!cellar_bottles)
		return -ENOMEM;
	return misc_register(&cellar_device);
}

static void __exit cellar_exit(void)
{
	misc_deregister(&cellar_device);
	kmem_cache_destroy(cellar_bottles);
}

module_init(cellar_init);
module_exit(cellar_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("practice");
