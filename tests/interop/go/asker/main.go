// Command asker asks a node what a go-cluster node or its clusterctl asks, in JSON over gRPC, driven by lines (see package lines).
//
// Events: started {addr}, record {topic, data, seq}, unsubscribed {error}.
// Commands: status, join {id, raftAddr}, leave {id}, appwrite {op, data}, appsync {topic, data}, subscribe {node}, ack {topic, seq, node}; and by the generated code of
// grpc-go, in protobuf: health {service}, services.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"coterie.test/interop/lines"
	"coterie.test/interop/model"
)

func main() {
	address := flag.String("addr", "", "the node's gRPC address")
	flag.Parse()
	connection, err := grpc.NewClient(*address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		lines.Die(err)
	}
	asJSON := grpc.CallContentSubtype("json")
	invoke := func(method string, in, out any) error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		return connection.Invoke(ctx, "/"+method, in, out, asJSON)
	}
	lines.Event("started", lines.Fields{"addr": *address})

	lines.Serve(map[string]lines.Handler{
		"status": lines.Take(func(model.Empty) (lines.Fields, error) {
			var out model.Status
			err := invoke(model.Management+"/GetStatus", &model.Empty{}, &out)
			return lines.Fields{"status": json.RawMessage(orNull(out.Data))}, err
		}),
		"join": lines.Take(func(in struct {
			Member, RaftAddr string
		}) (lines.Fields, error) {
			var out model.Accepted
			err := invoke(model.Management+"/Join", &model.JoinRequest{ID: in.Member, RaftAddr: in.RaftAddr}, &out)
			return lines.Fields{"accepted": out.Accepted, "leader": out.Leader, "reason": out.Error}, err
		}),
		"leave": lines.Take(func(in struct{ Member string }) (lines.Fields, error) {
			var out model.Accepted
			err := invoke(model.Management+"/Leave", &model.LeaveRequest{ID: in.Member}, &out)
			return lines.Fields{"accepted": out.Accepted, "leader": out.Leader, "reason": out.Error}, err
		}),
		"appwrite": lines.Take(func(in model.WriteRequest) (lines.Fields, error) {
			var out model.Written
			err := invoke(model.Management+"/AppWrite", &in, &out)
			return lines.Fields{"data": out.Data, "reason": out.Error}, err
		}),
		"appsync": lines.Take(func(in model.SyncRequest) (lines.Fields, error) {
			var out model.Synced
			err := invoke(model.Management+"/AppSync", &in, &out)
			return lines.Fields{"reason": out.Error}, err
		}),
		"ack": lines.Take(func(in struct {
			Topic, Node string
			Seq         uint64
		}) (lines.Fields, error) {
			return nil, invoke(model.Replication+"/Ack", &model.Ack{Topic: in.Topic, Seq: in.Seq, NodeID: in.Node}, &model.Empty{})
		}),
		"subscribe": lines.Take(func(in struct{ Node string }) (lines.Fields, error) {
			stream, err := connection.NewStream(
				context.Background(), &grpc.StreamDesc{ServerStreams: true}, "/"+model.Replication+"/Subscribe", asJSON,
			)
			if err != nil {
				return nil, err
			}
			if err := stream.SendMsg(&model.SubscribeRequest{NodeID: in.Node}); err != nil {
				return nil, err
			}
			if err := stream.CloseSend(); err != nil {
				return nil, err
			}
			if _, err := stream.Header(); err != nil {
				return nil, err
			}
			go receive(stream)
			return nil, nil
		}),
		"health": lines.Take(func(in struct{ Service string }) (lines.Fields, error) {
			out, err := health.NewHealthClient(connection).Check(context.Background(), &health.HealthCheckRequest{Service: in.Service})
			if status.Code(err) == codes.NotFound {
				return lines.Fields{"status": "NOT_FOUND"}, nil
			}
			return lines.Fields{"status": out.GetStatus().String()}, err
		}),
		"services": lines.Take(func(model.Empty) (lines.Fields, error) {
			names, err := services(connection)
			return lines.Fields{"services": names}, err
		}),
	})
}

func receive(stream grpc.ClientStream) {
	for {
		var record model.Record
		if err := stream.RecvMsg(&record); err != nil {
			lines.Event("unsubscribed", lines.Fields{"error": err.Error(), "code": status.Code(err).String()})
			return
		}
		lines.Event("record", lines.Fields{"topic": record.Topic, "data": record.Data, "seq": record.Seq})
	}
}

func services(connection *grpc.ClientConn) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stream, err := reflection.NewServerReflectionClient(connection).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	question := &reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_ListServices{ListServices: "*"}}
	if err := stream.Send(question); err != nil {
		return nil, err
	}
	answer, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, service := range answer.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	return names, stream.CloseSend()
}

func orNull(data []byte) []byte {
	if len(data) == 0 {
		return []byte("null")
	}
	return data
}
