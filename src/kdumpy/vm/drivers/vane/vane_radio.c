// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The radio: a network device whose packets come in by NAPI, and what follows other devices. */
#include <linux/etherdevice.h>
#include <linux/skbuff.h>

#include "vane.h"

bool vane_follows;

static netdev_tx_t vane_transmit(struct sk_buff *skb, struct net_device *net)
{
	struct vane_mast *mast = &vane_mast;

	if (mast->on_xmit)
		mast->on_xmit(mast, skb);
	if (mast->on_poll)
		napi_schedule(&mast->napi);
	dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

static int vane_poll(struct napi_struct *napi, int budget)
{
	struct vane_mast *mast = container_of(napi, struct vane_mast, napi);

	if (mast->on_poll)
		mast->on_poll(mast);
	napi_complete_done(napi, 0);
	return 0;
}

static const struct net_device_ops vane_radio_ops = { .ndo_start_xmit = vane_transmit };

static void vane_radio_setup(struct net_device *net)
{
	ether_setup(net);
	net->netdev_ops = &vane_radio_ops;
	net->flags |= IFF_NOARP;
	net->max_mtu = 65535;
	eth_hw_addr_random(net);
}

/* After "vxlan: Fix NPD in {arp,neigh}_reduce() when using nexthop objects" (CVE-2025-39850). */
static noinline u32 vane_answer_for(struct vane_uplink *uplink, struct sk_buff *skb)
{
	struct vane_peer *peer = list_first_or_null_rcu(&uplink->peers, struct vane_peer, near);

	return peer->hops + skb->len;
}

static void vane_reduce(struct vane_mast *mast, struct sk_buff *skb)
{
	mast->storms += vane_answer_for(mast->uplink, skb);
}

static void vane_no_peer(struct vane_mast *mast)
{
	mast->on_xmit = vane_reduce;
}

/* After "cdc_ncm: Deal with too low values of dwNtbOutMaxSize": more is put into a packet than fits. */
static noinline struct sk_buff *vane_build_frame(struct vane_mast *mast, unsigned int bytes)
{
	struct sk_buff *skb = netdev_alloc_skb(mast->radio, 96);

	if (!skb)
		return NULL;
	memset(skb_put(skb, bytes), 0x55, 64);
	return skb;
}

static void vane_receive(struct vane_mast *mast)
{
	kfree_skb(vane_build_frame(mast, READ_ONCE(mast->radio->mtu) + 4000));
}

static void vane_tall_frame(struct vane_mast *mast)
{
	mast->on_poll = vane_receive;
}

/* After "net: core: limit nested device depth": each change of one device changes a device in turn. */
static noinline int vane_follow_mtu(struct notifier_block *block, unsigned long event, void *data)
{
	struct net_device *net = netdev_notifier_info_to_dev(data);
	volatile u8 scratch[160];

	scratch[event % 160] = 1;
	if (vane_follows && event == NETDEV_CHANGEMTU)
		dev_set_mtu(vane_mast.radio, net->mtu + 1);
	return scratch[event % 160] ? NOTIFY_DONE : NOTIFY_BAD;
}

static struct notifier_block vane_mtu_block = { .notifier_call = vane_follow_mtu };

static void vane_nested_mtu(struct vane_mast *mast)
{
	vane_follows = true;
}

int vane_radio_add(struct vane_mast *mast)
{
	int error;

	mast->radio = alloc_netdev(0, "vane%d", NET_NAME_ENUM, vane_radio_setup);
	if (!mast->radio)
		return -ENOMEM;
	netif_napi_add(mast->radio, &mast->napi, vane_poll);
	napi_enable(&mast->napi);
	error = register_netdevice_notifier(&vane_mtu_block);
	return error ?: register_netdev(mast->radio);
}

void vane_radio_remove(struct vane_mast *mast)
{
	unregister_netdevice_notifier(&vane_mtu_block);
	napi_disable(&mast->napi);
	netif_napi_del(&mast->napi);
	unregister_netdev(mast->radio);
	free_netdev(mast->radio);
}

const struct vane_case vane_radio_cases[] = {
	{ "no-peer", vane_no_peer },
	{ "tall-frame", vane_tall_frame },
	{ "nested-mtu", vane_nested_mtu },
	{ }
};
