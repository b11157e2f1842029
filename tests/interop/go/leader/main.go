// Command leader is a node of go-cluster as others see it when it leads: it gossips as a hashicorp/memberlist node whose metadata has its management address and nothing
// else, and serves cluster.v1.Management and cluster.v1.Replication over gRPC in JSON. Its codec is chosen by the content-subtype of each call, so a caller that does not
// say json is not understood (but see -force). It is driven by lines (see package lines).
//
// Events: started {addr, mgmt}, join {node}, subscribed {node}, unsubscribed {node}, ack {topic, seq, node}, write {op, data}, asked {what}.
// Commands: join {addrs}; leads {leader, term}: what its status says; publish {topic, data}: gives the next seq and sends to all; send {topic, data, seq}: sends as it is;
// cut: ends the subscriptions; refuse {reason}: what a write is answered with.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/memberlist"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"coterie.test/interop/lines"
	"coterie.test/interop/model"
)

type node struct {
	sync.Mutex
	name, mgmt, leader, refusal string
	term                        uint64
	seq                         map[string]uint64
	subscribers                 map[int]chan model.Record
	next                        int
}

func (n *node) status() ([]byte, error) {
	n.Lock()
	defer n.Unlock()
	address := ""
	if n.leader == n.name {
		address = n.mgmt
	}
	return json.Marshal(map[string]any{
		"Healthy": n.leader != "", "Term": n.term, "LeaderID": n.leader, "LeaderAddr": address, "Warnings": nil,
		"Members": []any{map[string]any{"ID": n.name, "Addr": "", "Meta": map[string]string{"mgmt": n.mgmt}}},
	})
}

func (n *node) send(record model.Record) {
	n.Lock()
	defer n.Unlock()
	if record.Seq == 0 {
		n.seq[record.Topic]++
		record.Seq = n.seq[record.Topic]
	}
	for _, queue := range n.subscribers {
		queue <- record
	}
}

func (n *node) subscribe(stream grpc.ServerStream) error {
	var request model.SubscribeRequest
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	queue := make(chan model.Record, 4096)
	n.Lock()
	n.next++
	mine := n.next
	n.subscribers[mine] = queue
	n.Unlock()
	lines.Event("subscribed", lines.Fields{"node": request.NodeID})
	defer lines.Event("unsubscribed", lines.Fields{"node": request.NodeID})
	defer func() {
		n.Lock()
		delete(n.subscribers, mine)
		n.Unlock()
	}()
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case record, open := <-queue:
			if !open {
				return nil
			}
			if err := stream.SendMsg(&record); err != nil {
				return err
			}
		}
	}
}

func (n *node) cut() {
	n.Lock()
	defer n.Unlock()
	for at, queue := range n.subscribers {
		close(queue)
		delete(n.subscribers, at)
	}
}

func unary[In any, Out any](name string, run func(*In) (*Out, error)) grpc.MethodDesc {
	return grpc.MethodDesc{
		MethodName: name,
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(In)
			if err := decode(in); err != nil {
				return nil, err
			}
			return run(in)
		},
	}
}

func (n *node) register(server *grpc.Server) {
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: model.Management,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			unary("GetStatus", func(*model.Empty) (*model.Status, error) {
				data, err := n.status()
				lines.Event("asked", lines.Fields{"what": "status"})
				return &model.Status{Data: data}, err
			}),
			unary("Join", func(in *model.JoinRequest) (*model.Accepted, error) { return &model.Accepted{Accepted: true}, nil }),
			unary("Leave", func(in *model.LeaveRequest) (*model.Accepted, error) { return &model.Accepted{Accepted: true}, nil }),
			unary("AppWrite", func(in *model.WriteRequest) (*model.Written, error) {
				lines.Event("write", lines.Fields{"op": in.Op, "data": in.Data})
				n.Lock()
				defer n.Unlock()
				return &model.Written{Data: append([]byte("go:"), in.Data...), Error: n.refusal}, nil
			}),
			unary("AppSync", func(in *model.SyncRequest) (*model.Synced, error) {
				lines.Event("asked", lines.Fields{"what": "appsync"})
				return &model.Synced{}, nil
			}),
		},
	}, n)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: model.Replication,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: "Subscribe", ServerStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return n.subscribe(stream) },
		}},
		Methods: []grpc.MethodDesc{unary("Ack", func(in *model.Ack) (*model.Empty, error) {
			lines.Event("ack", lines.Fields{"topic": in.Topic, "seq": in.Seq, "node": in.NodeID})
			return &model.Empty{}, nil
		})},
	}, n)
}

type meta []byte

func (m meta) NodeMeta(int) []byte           { return m }
func (meta) NotifyMsg([]byte)                {}
func (meta) GetBroadcasts(int, int) [][]byte { return nil }
func (meta) LocalState(bool) []byte          { return nil }
func (meta) MergeRemoteState([]byte, bool)   {}

type events struct{}

func (events) NotifyJoin(node *memberlist.Node) { lines.Event("join", lines.Fields{"node": node.Name}) }
func (events) NotifyLeave(*memberlist.Node)     {}
func (events) NotifyUpdate(*memberlist.Node)    {}

func serverOptions(directory string, force bool) ([]grpc.ServerOption, error) {
	var options []grpc.ServerOption
	if force {
		options = append(options, grpc.ForceServerCodec(model.Codec{}))
	}
	if directory == "" {
		return options, nil
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(directory, "cert.pem"), filepath.Join(directory, "key.pem"))
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(filepath.Join(directory, "ca.pem"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("ca.pem: no certificate")
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	return append(options, grpc.Creds(credentials.NewTLS(config))), nil
}

func main() {
	name := flag.String("name", "", "name of the node")
	directory := flag.String("tls", "", "directory of ca.pem, cert.pem and key.pem: TLS, with client certificates")
	force := flag.Bool("force", false, "JSON whatever the content type says, as go-cluster's own server has it")
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		lines.Die(err)
	}
	n := &node{
		name: *name, mgmt: listener.Addr().String(), leader: *name, term: 7,
		seq: map[string]uint64{}, subscribers: map[int]chan model.Record{},
	}
	options, err := serverOptions(*directory, *force)
	if err != nil {
		lines.Die(err)
	}
	server := grpc.NewServer(options...)
	n.register(server)
	go func() { lines.Die(server.Serve(listener)) }()

	told, err := json.Marshal(map[string]string{"mgmt": n.mgmt})
	if err != nil {
		lines.Die(err)
	}
	config := memberlist.DefaultLANConfig()
	config.Name, config.BindAddr, config.BindPort, config.AdvertisePort = *name, "127.0.0.1", 0, 0
	config.Delegate, config.Events, config.LogOutput = meta(told), events{}, os.Stderr
	gossip, err := memberlist.Create(config)
	if err != nil {
		lines.Die(err)
	}
	lines.Event("started", lines.Fields{"addr": gossip.LocalNode().Address(), "mgmt": n.mgmt})

	lines.Serve(map[string]lines.Handler{
		"join": lines.Take(func(in struct{ Addrs []string }) (lines.Fields, error) {
			reached, err := gossip.Join(in.Addrs)
			return lines.Fields{"reached": reached}, err
		}),
		"leads": lines.Take(func(in struct {
			Leader string
			Term   uint64
		}) (lines.Fields, error) {
			n.Lock()
			defer n.Unlock()
			n.leader, n.term, n.seq = in.Leader, in.Term, map[string]uint64{}
			return nil, nil
		}),
		"publish": lines.Take(func(in model.SyncRequest) (lines.Fields, error) {
			n.send(model.Record{Topic: in.Topic, Data: in.Data})
			return nil, nil
		}),
		"send": lines.Take(func(in model.Record) (lines.Fields, error) {
			n.send(in)
			return nil, nil
		}),
		"cut": lines.Take(func(model.Empty) (lines.Fields, error) {
			n.cut()
			return nil, nil
		}),
		"refuse": lines.Take(func(in struct{ Reason string }) (lines.Fields, error) {
			n.Lock()
			defer n.Unlock()
			n.refusal = in.Reason
			return nil, nil
		}),
	})
}
