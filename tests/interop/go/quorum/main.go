// Command quorum is a hashicorp/raft server on its network transport with the default configuration, driven by lines (see package lines).
//
// Log, votes and snapshots are in memory: a peer that is killed does not come back. Nothing of raft.DefaultConfig is changed but the id and
// where the log text goes; its snapshot threshold (8192 entries) is far above what a test applies, and the state machine refuses to make one.
//
// Events: started {addr}, role {role, term}, leader {node, addr}, applied {index, term, data}.
// Commands: bootstrap, apply {prefix, count}, state, log, voter, nonvoter and remove {node, addr}, transfer {node, addr}, shutdown.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hashicorp/raft"

	"coterie.test/interop/lines"
)

const patience = 10 * time.Second

// recorder is a state machine that tells each command it is given.
type recorder struct{}

func (recorder) Apply(entry *raft.Log) any {
	lines.Event("applied", describe(entry))
	return nil
}

func (recorder) Snapshot() (raft.FSMSnapshot, error) {
	return nil, errors.New("this peer makes no snapshots")
}

func (recorder) Restore(io.ReadCloser) error {
	return errors.New("this peer takes no snapshots")
}

// describe gives an entry with its data as bytes, which JSON carries in base64.
func describe(entry *raft.Log) lines.Fields {
	return lines.Fields{"index": entry.Index, "term": entry.Term, "type": entry.Type, "data": entry.Data}
}

type peer struct {
	*raft.Raft
	id        raft.ServerID
	transport *raft.NetworkTransport
	log       *raft.InmemStore
}

// listen gives the transport: over TLS with the files of a directory, over plain TCP without one.
func listen(tlsDirectory string) (*raft.NetworkTransport, error) {
	if tlsDirectory == "" {
		return raft.NewTCPTransport("127.0.0.1:0", nil, 3, patience, os.Stderr)
	}
	layer, err := newTLSLayer(tlsDirectory)
	if err != nil {
		return nil, err
	}
	return raft.NewNetworkTransport(layer, 3, patience, os.Stderr), nil
}

func start(id, tlsDirectory string) (*peer, error) {
	config := raft.DefaultConfig()
	config.LocalID, config.LogOutput = raft.ServerID(id), os.Stderr
	transport, err := listen(tlsDirectory)
	if err != nil {
		return nil, err
	}
	store := raft.NewInmemStore()
	server, err := raft.NewRaft(config, recorder{}, store, store, raft.NewInmemSnapshotStore(), transport)
	if err != nil {
		return nil, err
	}
	return &peer{server, config.LocalID, transport, store}, nil
}

func (p *peer) watch() {
	seen := make(chan raft.Observation, 1024)
	p.RegisterObserver(raft.NewObserver(seen, true, nil))
	go func() {
		for observation := range seen {
			switch what := observation.Data.(type) {
			case raft.RaftState:
				lines.Event("role", lines.Fields{"role": what.String(), "term": p.CurrentTerm()})
			case raft.LeaderObservation:
				lines.Event("leader", lines.Fields{"node": what.LeaderID, "addr": what.LeaderAddr})
			}
		}
	}()
}

// apply proposes count commands, prefix-0 and so on, at once, and waits until the own state machine has had them all.
func (p *peer) apply(prefix string, count int) error {
	futures := make([]raft.ApplyFuture, count)
	for i := range futures {
		futures[i] = p.Apply(fmt.Appendf(nil, "%s-%d", prefix, i), patience)
	}
	for i, future := range futures {
		if err := future.Error(); err != nil {
			return fmt.Errorf("%s-%d: %w", prefix, i, err)
		}
	}
	return nil
}

func (p *peer) state() lines.Fields {
	address, id := p.LeaderWithID()
	return lines.Fields{
		"role": p.State().String(), "term": p.CurrentTerm(), "leader": id, "leader_addr": address,
		"commit": p.CommitIndex(), "applied": p.AppliedIndex(), "last": p.LastIndex(),
	}
}

func (p *peer) entries() (lines.Fields, error) {
	first, err := p.log.FirstIndex()
	if err != nil {
		return nil, err
	}
	last, err := p.log.LastIndex()
	if err != nil {
		return nil, err
	}
	entries := []lines.Fields{}
	for index := first; index <= last && last > 0; index++ {
		var entry raft.Log
		if err := p.log.GetLog(index, &entry); err != nil {
			return nil, fmt.Errorf("entry %d: %w", index, err)
		}
		entries = append(entries, describe(&entry))
	}
	return lines.Fields{"entries": entries}, nil
}

func (p *peer) servers() (lines.Fields, error) {
	future := p.GetConfiguration()
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
	tlsDirectory := flag.String("tls", "", "directory with ca.pem, cert.pem and key.pem; none: plain TCP")
	flag.Parse()
	p, err := start(*id, *tlsDirectory)
	if err != nil {
		lines.Die(err)
	}
	p.watch()
	lines.Event("started", lines.Fields{"addr": p.transport.LocalAddr()})

	lines.Serve(map[string]lines.Handler{
		"bootstrap": lines.Take(func(nothing) (lines.Fields, error) {
			only := raft.Server{ID: p.id, Address: p.transport.LocalAddr()}
			return nil, p.BootstrapCluster(raft.Configuration{Servers: []raft.Server{only}}).Error()
		}),
		"apply": lines.Take(func(command struct {
			Prefix string
			Count  int
		}) (lines.Fields, error) {
			return nil, p.apply(command.Prefix, command.Count)
		}),
		"state":   lines.Take(func(nothing) (lines.Fields, error) { return p.state(), nil }),
		"log":     lines.Take(func(nothing) (lines.Fields, error) { return p.entries() }),
		"servers": lines.Take(func(nothing) (lines.Fields, error) { return p.servers() }),
		"voter": lines.Take(func(s server) (lines.Fields, error) {
			return nil, p.AddVoter(s.Node, s.Addr, 0, patience).Error()
		}),
		"nonvoter": lines.Take(func(s server) (lines.Fields, error) {
			return nil, p.AddNonvoter(s.Node, s.Addr, 0, patience).Error()
		}),
		"remove": lines.Take(func(s server) (lines.Fields, error) {
			return nil, p.RemoveServer(s.Node, 0, patience).Error()
		}),
		"transfer": lines.Take(func(s server) (lines.Fields, error) {
			return nil, p.LeadershipTransferToServer(s.Node, s.Addr).Error()
		}),
		"shutdown": lines.Take(func(nothing) (lines.Fields, error) { return nil, p.Shutdown().Error() }),
	})
}
