// Command gossip is a hashicorp/memberlist node with the LAN defaults, driven by lines (see package lines).
//
// Events: started {addr}, join, leave and update {node, addr, meta}.
// Commands: join {addrs}, members, meta {meta}, leave {timeout}.
package main

import (
	"encoding/base64"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"coterie.test/interop/lines"
)

// delegate holds the metadata of this node; it has no user messages and no user state.
type delegate struct {
	sync.Mutex
	meta []byte
}

func (d *delegate) set(meta string) {
	d.Lock()
	defer d.Unlock()
	d.meta = []byte(meta)
}

func (d *delegate) NodeMeta(limit int) []byte {
	d.Lock()
	defer d.Unlock()
	if len(d.meta) > limit {
		lines.Die(fmt.Errorf("metadata of %d bytes, above %d", len(d.meta), limit))
	}
	return d.meta
}

func (d *delegate) NotifyMsg([]byte)                {}
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d *delegate) LocalState(bool) []byte          { return nil }
func (d *delegate) MergeRemoteState([]byte, bool)   {}

type events struct{}

func describe(node *memberlist.Node) lines.Fields {
	return lines.Fields{"node": node.Name, "addr": node.Address(), "meta": string(node.Meta)}
}

func (events) NotifyJoin(node *memberlist.Node)   { lines.Event("join", describe(node)) }
func (events) NotifyLeave(node *memberlist.Node)  { lines.Event("leave", describe(node)) }
func (events) NotifyUpdate(node *memberlist.Node) { lines.Event("update", describe(node)) }

func address(text string) (string, int, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", 0, err
	}
	number, err := strconv.Atoi(port)
	return host, number, err
}

func main() {
	name := flag.String("name", "", "name of the node")
	meta := flag.String("meta", "", "its metadata")
	bind := flag.String("bind", "127.0.0.1:0", "its address, UDP and TCP")
	key := flag.String("key", "", "key that encrypts, in base64; none: in the clear")
	label := flag.String("label", "", "label of its cluster")
	flag.Parse()

	host, port, err := address(*bind)
	if err != nil {
		lines.Die(err)
	}
	own := &delegate{meta: []byte(*meta)}
	config := memberlist.DefaultLANConfig()
	config.Name = *name
	config.BindAddr, config.BindPort, config.AdvertisePort = host, port, port
	config.Delegate, config.Events, config.LogOutput = own, events{}, os.Stderr
	config.Label = *label
	if config.SecretKey, err = base64.StdEncoding.DecodeString(*key); err != nil {
		lines.Die(err)
	}
	node, err := memberlist.Create(config)
	if err != nil {
		lines.Die(err)
	}
	lines.Event("started", lines.Fields{"addr": node.LocalNode().Address()})

	lines.Serve(map[string]lines.Handler{
		"join": lines.Take(func(command struct{ Addrs []string }) (lines.Fields, error) {
			reached, err := node.Join(command.Addrs)
			return lines.Fields{"reached": reached}, err
		}),
		"members": lines.Take(func(struct{}) (lines.Fields, error) {
			members := []lines.Fields{}
			for _, member := range node.Members() {
				members = append(members, describe(member))
			}
			return lines.Fields{"members": members, "health": node.GetHealthScore()}, nil
		}),
		"meta": lines.Take(func(command struct{ Meta string }) (lines.Fields, error) {
			own.set(command.Meta)
			return nil, node.UpdateNode(5 * time.Second)
		}),
		"leave": lines.Take(func(command struct{ Timeout float64 }) (lines.Fields, error) {
			return nil, node.Leave(time.Duration(command.Timeout * float64(time.Second)))
		}),
	})
}
