package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"coterie.test/interop/lines"
)

const electionTimeout = 2 * time.Second

// store is a log in memory whose writes can be made to hang for ever.
type store struct {
	*raft.InmemStore
	frozen atomic.Bool
	hung   chan struct{} // closed by the first write that hangs
	once   sync.Once
}

func (s *store) StoreLogs(logs []*raft.Log) error {
	if s.frozen.Load() {
		s.once.Do(func() { close(s.hung) })
		select {}
	}
	return s.InmemStore.StoreLogs(logs)
}

func (s *store) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// wire counts the snapshots that a server sends; before lets something happen while one is under way.
type wire struct {
	*raft.InmemTransport
	mutex  sync.Mutex
	sent   []uint64 // the last index of each that was taken
	before func()
}

func (w *wire) InstallSnapshot(
	id raft.ServerID, target raft.ServerAddress, request *raft.InstallSnapshotRequest, response *raft.InstallSnapshotResponse, data io.Reader,
) error {
	if w.before != nil {
		w.before()
	}
	err := w.InmemTransport.InstallSnapshot(id, target, request, response, data)
	if err == nil && response.Success {
		w.mutex.Lock()
		defer w.mutex.Unlock()
		w.sent = append(w.sent, request.LastLogIndex)
	}
	return err
}

func (w *wire) installed() []uint64 {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return append([]uint64(nil), w.sent...)
}

// counter is a state machine that knows how many commands it has carried out.
type counter struct{ count atomic.Uint64 }

func (c *counter) Apply(*raft.Log) any                 { return c.count.Add(1) }
func (c *counter) Snapshot() (raft.FSMSnapshot, error) { return held(c.count.Load()), nil }
func (c *counter) Restore(snapshot io.ReadCloser) error {
	defer snapshot.Close()
	var count uint64
	if _, err := fmt.Fscan(snapshot, &count); err != nil {
		return err
	}
	c.count.Store(count)
	return nil
}

type held uint64

func (h held) Persist(sink raft.SnapshotSink) error {
	if _, err := fmt.Fprintln(sink, uint64(h)); err != nil {
		return err
	}
	return sink.Close()
}

func (held) Release() {}

type server struct {
	*raft.Raft
	config    *raft.Config
	log       *store
	snapshots raft.SnapshotStore
	wire      *wire
	machine   *counter
}

// servers makes three servers that know one another; none runs yet.
func servers() ([]*server, error) {
	var three []*server
	var configuration raft.Configuration
	for number := 1; number <= 3; number++ {
		config := raft.DefaultConfig()
		config.LocalID = raft.ServerID(fmt.Sprintf("n%d", number))
		config.HeartbeatTimeout, config.ElectionTimeout, config.LeaderLeaseTimeout = electionTimeout, electionTimeout, electionTimeout
		config.SnapshotThreshold = 1 << 40 // only when it is told to
		config.Logger = hclog.New(&hclog.LoggerOptions{Name: string(config.LocalID), Level: hclog.Warn, Output: os.Stderr})
		address, inmem := raft.NewInmemTransportWithTimeout("", patience)
		configuration.Servers = append(configuration.Servers, raft.Server{ID: config.LocalID, Address: address})
		log := &store{InmemStore: raft.NewInmemStore(), hung: make(chan struct{})}
		three = append(three, &server{
			config: config, log: log, snapshots: raft.NewInmemSnapshotStore(), wire: &wire{InmemTransport: inmem}, machine: &counter{},
		})
	}
	for _, one := range three {
		if err := raft.BootstrapCluster(one.config, one.log, one.log, one.snapshots, one.wire, configuration); err != nil {
			return nil, err
		}
	}
	return three, nil
}

// start runs servers and connects them with those that run already.
func start(running []*server, more ...*server) (all []*server, err error) {
	all = append(running, more...)
	for _, one := range more {
		for _, other := range all {
			one.wire.Connect(other.wire.LocalAddr(), other.wire.InmemTransport)
			other.wire.Connect(one.wire.LocalAddr(), one.wire.InmemTransport)
		}
		if one.Raft, err = raft.NewRaft(one.config, one.machine, one.log, one.log, one.snapshots, one.wire); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func leaderOf(running []*server) (leader *server, err error) {
	err = within(patience, "a leader", func() bool {
		for _, one := range running {
			if one.State() == raft.Leader {
				leader = one
			}
		}
		return leader != nil
	})
	return leader, err
}

func apply(leader *server, count int) error {
	for ; count > 0; count-- {
		if err := leader.Apply([]byte("x"), patience).Error(); err != nil {
			return err
		}
	}
	return nil
}

// hang: the leader's log store takes a write and never returns.
func hang() (lines.Fields, error) {
	three, err := servers()
	if err != nil {
		return nil, err
	}
	if three, err = start(nil, three...); err != nil {
		return nil, err
	}
	leader, err := leaderOf(three)
	if err != nil {
		return nil, err
	}
	if err := apply(leader, 1); err != nil {
		return nil, err
	}
	all := func(holds func(*server) bool) bool {
		for _, one := range three {
			if !holds(one) {
				return false
			}
		}
		return true
	}
	if err := within(patience, "the first command on all", func() bool {
		return all(func(one *server) bool { return one.machine.count.Load() == 1 })
	}); err != nil {
		return nil, err
	}
	term, committed := leader.CurrentTerm(), leader.CommitIndex()

	leader.log.frozen.Store(true)
	answered := make(chan error, 1)
	future := leader.Apply([]byte("never"), electionTimeout)
	go func() { answered <- future.Error() }()
	<-leader.log.hung
	deposed, silence := false, time.Duration(0)
	for end := time.Now().Add(5 * electionTimeout); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, one := range three {
			_, believed := one.LeaderWithID()
			deposed = deposed || believed != leader.config.LocalID || (one == leader) != (one.State() == raft.Leader)
			if one != leader {
				silence = max(silence, time.Since(one.LastContact()))
			}
		}
	}
	return lines.Fields{
		"election_timeouts": 5,
		"deposed":           deposed,
		"terms_passed":      leader.CurrentTerm() - term,
		"silence":           silence.Seconds() / electionTimeout.Seconds(), // the longest that a follower heard nothing, in election time-outs
		"committed": !all(func(one *server) bool {
			return one.CommitIndex() == committed && one.machine.count.Load() == 1
		}),
		"answered": len(answered) > 0,
	}, nil
}

// lagging: n1 and n2 have a log whose beginning only their snapshot has; n3 has not started. The leader, and the index of the snapshot.
func lagging(prepare func(n3 *server) error, trailing uint64) (leader, n3 *server, last uint64, err error) {
	three, err := servers()
	if err != nil {
		return nil, nil, 0, err
	}
	n3 = three[2]
	for _, one := range three[:2] {
		one.config.TrailingLogs = trailing
		if err := one.log.SetUint64([]byte("CurrentTerm"), 5); err != nil {
			return nil, nil, 0, err
		}
	}
	if err := prepare(n3); err != nil {
		return nil, nil, 0, err
	}
	running, err := start(nil, three[:2]...)
	if err != nil {
		return nil, nil, 0, err
	}
	if leader, err = leaderOf(running); err != nil {
		return nil, nil, 0, err
	}
	if err := apply(leader, 20); err != nil {
		return nil, nil, 0, err
	}
	if err := leader.Snapshot().Error(); err != nil {
		return nil, nil, 0, err
	}
	return leader, n3, leader.CommitIndex(), nil
}

// diverged: n3 led in term 3 and has entries of its own, never committed, beyond the last one of the snapshot that it is sent.
func diverged() (lines.Fields, error) {
	leader, n3, last, err := lagging(func(n3 *server) error {
		for index := uint64(2); index <= 100; index++ {
			if err := n3.log.StoreLog(&raft.Log{Index: index, Term: 3, Type: raft.LogCommand, Data: []byte("old")}); err != nil {
				return err
			}
		}
		return n3.log.SetUint64([]byte("CurrentTerm"), 3)
	}, 1)
	if err != nil {
		return nil, err
	}
	return report(leader, n3, last)
}

// slow: while n3 takes a snapshot, the leader writes, takes the next one, and compacts. Five times; then nothing is written any more.
func slow() (lines.Fields, error) {
	leader, n3, last, err := lagging(func(*server) error { return nil }, 1)
	if err != nil {
		return nil, err
	}
	var failed error
	rounds := 0
	leader.wire.before = func() {
		if rounds++; rounds > 5 || failed != nil {
			return
		}
		if failed = apply(leader, 20); failed == nil {
			failed = leader.Snapshot().Error()
		}
	}
	found, err := report(leader, n3, last)
	if failed != nil {
		return nil, failed
	}
	return found, err
}

// report starts n3 and tells what it was sent until it has caught up, or six snapshots have been taken by it, or nothing happens any more.
func report(leader, n3 *server, last uint64) (lines.Fields, error) {
	if _, err := start([]*server{leader}, n3); err != nil {
		return nil, err
	}
	level := func() bool { return n3.LastIndex() == leader.LastIndex() && n3.AppliedIndex() == leader.AppliedIndex() }
	if err := within(patience, "n3 has caught up, or was sent six snapshots", func() bool {
		return len(leader.wire.installed()) >= 6 || level()
	}); err != nil {
		return nil, err
	}
	// A command more, for who has only the snapshot.
	if err := apply(leader, 1); err != nil {
		return nil, err
	}
	caughtUp := within(2*time.Second, "n3 has the last command", func() bool {
		return n3.machine.count.Load() == leader.machine.count.Load()
	}) == nil
	installed := leader.wire.installed()
	return lines.Fields{"snapshot": last, "first_six": installed[:min(6, len(installed))], "installed": len(installed), "caught_up": caughtUp}, nil
}
