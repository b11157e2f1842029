// Package model is what a go-cluster node speaks over gRPC: plain structs in JSON, content-subtype json, on the services cluster.v1.Management and
// cluster.v1.Replication. Both programs share it; nothing of it knows protobuf.
package model

import (
	"encoding/json"

	"google.golang.org/grpc/encoding"
)

// Codec is JSON under its own name, so that a call must say application/grpc+json to meet it.
type Codec struct{}

func (Codec) Name() string                       { return "json" }
func (Codec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (Codec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

func init() { encoding.RegisterCodec(Codec{}) }

const (
	Management  = "cluster.v1.Management"
	Replication = "cluster.v1.Replication"
)

type Empty struct{}

type Status struct {
	Data []byte `json:"data"`
}

type JoinRequest struct {
	ID       string `json:"id"`
	RaftAddr string `json:"raftAddr"`
}

type LeaveRequest struct {
	ID string `json:"id"`
}

type Accepted struct {
	Accepted bool   `json:"accepted"`
	Leader   string `json:"leader,omitempty"`
	Error    string `json:"error,omitempty"`
}

type WriteRequest struct {
	Op   string `json:"op"`
	Data []byte `json:"data"`
}

type Written struct {
	Data  []byte `json:"data,omitempty"`
	Error string `json:"error,omitempty"`
}

type SyncRequest struct {
	Topic string `json:"topic"`
	Data  []byte `json:"data"`
}

type Synced struct {
	Error string `json:"error,omitempty"`
}

type SubscribeRequest struct {
	NodeID string `json:"nodeId,omitempty"`
}

type Record struct {
	Topic string `json:"topic"`
	Data  []byte `json:"data"`
	Seq   uint64 `json:"seq"`
}

type Ack struct {
	Topic  string `json:"topic"`
	Seq    uint64 `json:"seq"`
	NodeID string `json:"nodeId,omitempty"`
}
