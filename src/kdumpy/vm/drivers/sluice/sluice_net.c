// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The network device: what is sent to it becomes parcels. */
#include <linux/etherdevice.h>
#include <linux/skbuff.h>

#include "sluice.h"

static netdev_tx_t sluice_start_xmit(struct sk_buff *skb, struct net_device *net)
{
	struct sluice_gate *gate = &sluice_gate;

	if (gate->on_xmit)
		gate->on_xmit(gate, skb);
	gate->dropped++;
	dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops sluice_net_ops = { .ndo_start_xmit = sluice_start_xmit };

static void sluice_net_setup(struct net_device *net)
{
	ether_setup(net);
	net->netdev_ops = &sluice_net_ops;
	net->flags |= IFF_NOARP;
	eth_hw_addr_random(net);
}

int sluice_net_add(struct sluice_gate *gate)
{
	gate->net = alloc_netdev(0, "slu%d", NET_NAME_ENUM, sluice_net_setup);
	if (!gate->net)
		return -ENOMEM;
	return register_netdev(gate->net);
}
