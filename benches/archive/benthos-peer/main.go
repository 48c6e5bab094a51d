// A peer of scripts/bench-archive: the Benthos engine (the MIT core of Redpanda Connect) with its pure and io components, and two
// ends of our own: a member of a Kafka group (franz-go, the client that Redpanda Connect has too) and puts to S3 (minio-go). At
// least once. As these two decide the figures, it is not Redpanda Connect and must not be called so.
package main

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure/extended" // zstd
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ---- input: a batch for each partition of a fetch; offsets are committed in order, after they are acknowledged

type pending struct {
	last *kgo.Record
	done bool
}

type tp struct {
	topic     string
	partition int32
}

type kafkaIn struct {
	opts  []kgo.Opt
	cl    *kgo.Client
	mu    sync.Mutex
	queue map[tp][]*pending
	ready []kgo.FetchTopicPartition
}

func (k *kafkaIn) Connect(ctx context.Context) (err error) {
	k.queue = map[tp][]*pending{}
	if k.cl, err = kgo.NewClient(k.opts...); err != nil {
		return err
	}
	return k.cl.Ping(ctx)
}

func (k *kafkaIn) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	for len(k.ready) == 0 {
		f := k.cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		f.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) > 0 {
				k.ready = append(k.ready, p)
			}
		})
	}
	p := k.ready[0]
	k.ready = k.ready[1:]
	batch := make(service.MessageBatch, 0, len(p.Records))
	for _, r := range p.Records {
		if r.Value == nil {
			continue // the beginning or the end of a session, or the turn of an hour
		}
		m := service.NewMessage(r.Value)
		m.MetaSetMut("kafka_topic", r.Topic)
		m.MetaSetMut("kafka_partition", int(r.Partition))
		m.MetaSetMut("kafka_offset", int(r.Offset))
		m.MetaSetMut("kafka_key", string(r.Key))
		batch = append(batch, m)
	}
	key, e := tp{p.Topic, p.Partition}, &pending{last: p.Records[len(p.Records)-1]}
	k.mu.Lock()
	k.queue[key] = append(k.queue[key], e)
	k.mu.Unlock()
	return batch, func(ctx context.Context, err error) error {
		if err != nil {
			return err // retried by AutoRetryNacksBatched
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		e.done = true
		q := k.queue[key]
		for len(q) > 0 && q[0].done {
			k.cl.MarkCommitRecords(q[0].last)
			q = q[1:]
		}
		k.queue[key] = q
		return nil
	}, nil
}

func (k *kafkaIn) Close(ctx context.Context) error {
	if k.cl == nil {
		return nil
	}
	err := k.cl.CommitMarkedOffsets(ctx)
	k.cl.Close()
	return err
}

// ---- output: an object for each message of a batch; processors have made one message of it

type s3Out struct {
	cl     *minio.Client
	bucket string
	path   *service.InterpolatedString
}

func (s *s3Out) Connect(ctx context.Context) error {
	_, err := s.cl.BucketExists(ctx, s.bucket)
	return err
}

func (s *s3Out) WriteBatch(ctx context.Context, b service.MessageBatch) error {
	for i, m := range b {
		body, err := m.AsBytes()
		if err != nil {
			return err
		}
		name, err := b.TryInterpolatedString(i, s.path)
		if err != nil {
			return err
		}
		if _, err = s.cl.PutObject(ctx, s.bucket, name, bytes.NewReader(body), int64(len(body)),
			minio.PutObjectOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func (s *s3Out) Close(context.Context) error { return nil }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func init() {
	in := service.NewConfigSpec().Fields(
		service.NewStringListField("seed_brokers"),
		service.NewStringListField("topics"),
		service.NewStringField("consumer_group"),
		service.NewAutoRetryNacksToggleField())
	if err := service.RegisterBatchInput("kafka_min", in,
		func(c *service.ParsedConfig, _ *service.Resources) (service.BatchInput, error) {
			k := &kafkaIn{opts: []kgo.Opt{
				kgo.SeedBrokers(must(c.FieldStringList("seed_brokers"))...),
				kgo.ConsumeTopics(must(c.FieldStringList("topics"))...),
				kgo.ConsumerGroup(must(c.FieldString("consumer_group"))),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
				kgo.AutoCommitMarks(),
				kgo.AutoCommitInterval(time.Second),
			}}
			return service.AutoRetryNacksBatchedToggled(c, k)
		}); err != nil {
		panic(err)
	}
	out := service.NewConfigSpec().Fields(
		service.NewStringField("endpoint"), // http://host:port
		service.NewStringField("access_key"), service.NewStringField("secret_key"),
		service.NewStringField("bucket"), service.NewInterpolatedStringField("path"),
		service.NewOutputMaxInFlightField(), service.NewBatchPolicyField("batching"))
	if err := service.RegisterBatchOutput("s3_min", out,
		func(c *service.ParsedConfig, _ *service.Resources) (service.BatchOutput, service.BatchPolicy, int, error) {
			url := must(c.FieldString("endpoint"))
			_, host, _ := strings.Cut(url, "://")
			cl, err := minio.New(host, &minio.Options{
				Creds: credentials.NewStaticV4(must(c.FieldString("access_key")),
					must(c.FieldString("secret_key")), ""),
				Secure: strings.HasPrefix(url, "https://"), Region: "us-east-1",
			})
			return &s3Out{cl, must(c.FieldString("bucket")), must(c.FieldInterpolatedString("path"))},
				must(c.FieldBatchPolicy("batching")), must(c.FieldMaxInFlight()), err
		}); err != nil {
		panic(err)
	}
}

func main() { service.RunCLI(context.Background()) }
