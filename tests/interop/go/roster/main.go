// Command roster is a node in the manner of go-cluster, driven by lines (see package lines): a hashicorp/raft server with the default configuration on
// raft-boltdb, whose state machine is a roster in JSON, and a hashicorp/memberlist member whose metadata is {"mgmt": address}.
//
// Log, votes and snapshots are in -data: a peer that is killed comes back from there, at the same -raft and -gossip.
//
// -trailing says how many entries of its log a snapshot leaves (10240 by default, as in hashicorp/raft).
//
// As the leader it puts into the roster whom the gossip sees come or change. With -evict it does what go-cluster's leaders do when the gossip loses a
// member: out of the quorum and out of the roster.
//
// Events: started {addr, gossip}, role {role, term}, leader {node}, join and leave {node}.
// Commands: bootstrap, meet {addrs}, roster, state, servers, voter, nonvoter and remove {node, addr}, transfer {node, addr}, snapshot, apply {data}: an entry that is no
// command of the roster.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"
	boltdb "github.com/hashicorp/raft-boltdb/v2"

	"coterie.test/interop/lines"
)

const patience = 10 * time.Second

type member struct {
	ID   string
	Addr string
	Meta map[string]string
}

type command struct {
	Op      string
	Payload []byte
}

// document is the snapshot.
type document struct {
	Version int      `json:"version"`
	Members []member `json:"members"`
}

// roster is the state machine. What is no command of it, such as the publishes of other nodes, is skipped and counted.
type roster struct {
	sync.Mutex
	members map[string]member
	skipped int
}

func (r *roster) Apply(entry *raft.Log) any {
	r.Lock()
	defer r.Unlock()
	err := r.apply(entry.Data)
	if err != nil {
		r.skipped++
	}
	return err
}

func (r *roster) apply(data []byte) error {
	var c command
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	var m member
	if err := json.Unmarshal(c.Payload, &m); err != nil {
		return err
	}
	if m.ID == "" {
		return errors.New("an empty id")
	}
	switch c.Op {
	case "AddNode":
		r.members[m.ID] = m
	case "RemoveNode":
		delete(r.members, m.ID)
	default:
		return errors.New("unknown Op " + c.Op)
	}
	return nil
}

func (r *roster) document() ([]byte, int, error) {
	r.Lock()
	defer r.Unlock()
	members := make([]member, 0, len(r.members))
	for _, m := range r.members {
		members = append(members, m)
	}
	sort.Slice(members, func(i, j int) bool { return members[i].ID < members[j].ID })
	data, err := json.Marshal(document{1, members})
	return data, r.skipped, err
}

func (r *roster) Snapshot() (raft.FSMSnapshot, error) {
	data, _, err := r.document()
	return snapshot(data), err
}

func (r *roster) Restore(stream io.ReadCloser) error {
	defer stream.Close()
	var d document
	if err := json.NewDecoder(stream).Decode(&d); err != nil {
		return err
	}
	r.Lock()
	defer r.Unlock()
	r.members = map[string]member{}
	for _, m := range d.Members {
		r.members[m.ID] = m
	}
	return nil
}

type snapshot []byte

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := io.Copy(sink, bytes.NewReader(s)); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (snapshot) Release() {}

// node is both halves: the Raft server, and its eyes in the gossip.
type node struct {
	*raft.Raft
	id      raft.ServerID
	address raft.ServerAddress
	roster  *roster
	meta    []byte
	evict   bool
	work    chan func()
}

func (n *node) NodeMeta(int) []byte           { return n.meta }
func (*node) NotifyMsg([]byte)                {}
func (*node) GetBroadcasts(int, int) [][]byte { return nil }
func (*node) LocalState(bool) []byte          { return nil }
func (*node) MergeRemoteState([]byte, bool)   {}

func (n *node) NotifyJoin(m *memberlist.Node) {
	lines.Event("join", lines.Fields{"node": m.Name})
	n.seen(m)
}

func (n *node) NotifyUpdate(m *memberlist.Node) { n.seen(m) }

func (n *node) NotifyLeave(m *memberlist.Node) {
	lines.Event("leave", lines.Fields{"node": m.Name})
	name := m.Name
	n.work <- func() {
		if n.evict && n.State() == raft.Leader {
			report(n.RemoveServer(raft.ServerID(name), 0, patience).Error())
			report(n.write("RemoveNode", map[string]string{"id": name}))
		}
	}
}

func (n *node) seen(m *memberlist.Node) {
	told := member{m.Name, m.Address(), map[string]string{}}
	if len(m.Meta) > 0 {
		report(json.Unmarshal(m.Meta, &told.Meta))
	}
	n.work <- func() {
		if n.State() == raft.Leader {
			report(n.write("AddNode", told))
		}
	}
}

func (n *node) write(op string, payload any) error {
	inner, err := json.Marshal(payload)
	if err != nil {
		return err
	}
	data, err := json.Marshal(command{op, inner})
	if err != nil {
		return err
	}
	return n.Apply(data, patience).Error()
}

// report says an error to the log: a leadership that is lost on the way is no reason to end.
func report(err error) {
	if err != nil {
		_, _ = io.WriteString(os.Stderr, "not done: "+err.Error()+"\n")
	}
}

func (n *node) watch() {
	seen := make(chan raft.Observation, 1024)
	n.RegisterObserver(raft.NewObserver(seen, true, nil))
	go func() {
		for observation := range seen {
			switch what := observation.Data.(type) {
			case raft.RaftState:
				lines.Event("role", lines.Fields{"role": what.String(), "term": n.CurrentTerm()})
			case raft.LeaderObservation:
				lines.Event("leader", lines.Fields{"node": what.LeaderID})
			}
		}
	}()
}

func start(id, bind, data string, trailing uint64) (*node, error) {
	config := raft.DefaultConfig()
	config.TrailingLogs = trailing
	config.LocalID, config.LogOutput = raft.ServerID(id), os.Stderr
	transport, err := raft.NewTCPTransport(bind, nil, 3, patience, os.Stderr)
	if err != nil {
		return nil, err
	}
	store, err := boltdb.NewBoltStore(filepath.Join(data, "raft.db"))
	if err != nil {
		return nil, err
	}
	snapshots, err := raft.NewFileSnapshotStore(data, 2, os.Stderr)
	if err != nil {
		return nil, err
	}
	state := &roster{members: map[string]member{}}
	server, err := raft.NewRaft(config, state, store, store, snapshots, transport)
	if err != nil {
		return nil, err
	}
	return &node{Raft: server, id: config.LocalID, address: transport.LocalAddr(), roster: state, work: make(chan func(), 1024)}, nil
}

func (n *node) gossip(bind string) (*memberlist.Memberlist, error) {
	host, text, err := net.SplitHostPort(bind)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	config := memberlist.DefaultLANConfig()
	config.Name = string(n.id)
	config.BindAddr, config.BindPort, config.AdvertisePort = host, port, port
	config.Delegate, config.Events, config.LogOutput = n, n, os.Stderr
	return memberlist.Create(config)
}

func (n *node) state() lines.Fields {
	_, leader := n.LeaderWithID()
	return lines.Fields{
		"role": n.State().String(), "term": n.CurrentTerm(), "leader": leader,
		"commit": n.CommitIndex(), "applied": n.AppliedIndex(), "last": n.LastIndex(),
	}
}

func (n *node) servers() (lines.Fields, error) {
	future := n.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, err
	}
	servers := []lines.Fields{}
	for _, server := range future.Configuration().Servers {
		servers = append(servers, lines.Fields{"node": server.ID, "addr": server.Address, "suffrage": server.Suffrage.String()})
	}
	return lines.Fields{"servers": servers}, nil
}

type nothing struct{}

type server struct {
	Node raft.ServerID
	Addr raft.ServerAddress
}

func main() {
	id := flag.String("id", "", "server id")
	bind := flag.String("raft", "127.0.0.1:0", "address of the Raft server")
	gossip := flag.String("gossip", "127.0.0.1:0", "address of the gossip, UDP and TCP")
	mgmt := flag.String("mgmt", "127.0.0.1:1", "management address to tell in the gossip")
	data := flag.String("data", "", "directory of the log, the votes and the snapshots")
	trailing := flag.Uint64("trailing", raft.DefaultConfig().TrailingLogs, "entries of the log that a snapshot leaves")
	evict := flag.Bool("evict", false, "take whom the gossip loses out of the quorum")
	flag.Parse()

	n, err := start(*id, *bind, *data, *trailing)
	if err != nil {
		lines.Die(err)
	}
	n.evict = *evict
	if n.meta, err = json.Marshal(map[string]string{"mgmt": *mgmt}); err != nil {
		lines.Die(err)
	}
	n.watch()
	go func() {
		for work := range n.work {
			work()
		}
	}()
	members, err := n.gossip(*gossip)
	if err != nil {
		lines.Die(err)
	}
	lines.Event("started", lines.Fields{"addr": n.address, "gossip": members.LocalNode().Address()})

	lines.Serve(map[string]lines.Handler{
		"bootstrap": lines.Take(func(nothing) (lines.Fields, error) {
			only := raft.Server{ID: n.id, Address: n.address}
			return nil, n.BootstrapCluster(raft.Configuration{Servers: []raft.Server{only}}).Error()
		}),
		"meet": lines.Take(func(command struct{ Addrs []string }) (lines.Fields, error) {
			reached, err := members.Join(command.Addrs)
			return lines.Fields{"reached": reached}, err
		}),
		"roster": lines.Take(func(nothing) (lines.Fields, error) {
			data, skipped, err := n.roster.document()
			return lines.Fields{"document": string(data), "skipped": skipped}, err
		}),
		"state":   lines.Take(func(nothing) (lines.Fields, error) { return n.state(), nil }),
		"servers": lines.Take(func(nothing) (lines.Fields, error) { return n.servers() }),
		"voter": lines.Take(func(s server) (lines.Fields, error) {
			return nil, n.AddVoter(s.Node, s.Addr, 0, patience).Error()
		}),
		"nonvoter": lines.Take(func(s server) (lines.Fields, error) {
			return nil, n.AddNonvoter(s.Node, s.Addr, 0, patience).Error()
		}),
		"remove": lines.Take(func(s server) (lines.Fields, error) {
			return nil, n.RemoveServer(s.Node, 0, patience).Error()
		}),
		"transfer": lines.Take(func(s server) (lines.Fields, error) {
			return nil, n.LeadershipTransferToServer(s.Node, s.Addr).Error()
		}),
		"apply": lines.Take(func(command struct{ Data string }) (lines.Fields, error) {
			future := n.Apply([]byte(command.Data), patience)
			return lines.Fields{"index": future.Index()}, future.Error()
		}),
		"snapshot": lines.Take(func(nothing) (lines.Fields, error) { return nil, n.Raft.Snapshot().Error() }),
	})
}
