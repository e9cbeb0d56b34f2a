// Command kubernetes sends audit events as kube-apiserver does, by its own webhook backend and with its defaults.
//
//	kubernetes <kubeconfig> blocking|batch|truncated <wait before it sends again>
//
// It reads events of audit.k8s.io/v1, one a line, and prints of each whether the backend takes it for sent or for lost.
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	audit "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	backend "k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/audit/buffered"
	"k8s.io/apiserver/plugin/pkg/audit/truncate"
	sender "k8s.io/apiserver/plugin/pkg/audit/webhook"
)

// As many requests of an API server as wait for a blocking webhook at the same time.
const requests = 8

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: kubernetes KUBECONFIG blocking|batch|truncated WAIT")
	}
	built := build(os.Args[1], os.Args[2], must(time.ParseDuration(os.Args[3])))
	stop := make(chan struct{})
	if err := built.Run(stop); err != nil {
		log.Fatal(err)
	}
	lines, handlers := make(chan []byte), sync.WaitGroup{}
	for range requests {
		handlers.Go(func() {
			for line := range lines {
				built.ProcessEvents(decode(line))
			}
		})
	}
	reader := bufio.NewReader(os.Stdin)
	for line, err := reader.ReadBytes('\n'); err == nil; line, err = reader.ReadBytes('\n') {
		lines <- line
	}
	close(lines)
	handlers.Wait()
	close(stop)
	built.Shutdown()
}

// build puts the backends around one another as k8s.io/apiserver/pkg/server/options does.
func build(kubeconfig, mode string, wait time.Duration) backend.Backend {
	retry := webhook.DefaultRetryBackoffWithInitialDelay(wait)
	var built backend.Backend = reporter{must(sender.NewBackend(kubeconfig, auditv1.SchemeGroupVersion, retry, nil))}
	if mode == "blocking" {
		return built
	}
	built = buffered.NewBackend(built, buffered.BatchConfig{
		BufferSize:     10_000,
		MaxBatchSize:   400,
		MaxBatchWait:   30 * time.Second,
		ThrottleEnable: true,
		ThrottleQPS:    10,
		ThrottleBurst:  15,
		AsyncDelegate:  true,
	})
	if mode == "truncated" {
		limits := truncate.Config{MaxEventSize: 100 << 10, MaxBatchSize: 10 << 20}
		built = truncate.NewBackend(built, limits, auditv1.SchemeGroupVersion)
	}
	return built
}

// reporter says what the webhook returned of each event.
type reporter struct{ backend.Backend }

func (r reporter) ProcessEvents(events ...*audit.Event) bool {
	outcome := map[bool]string{true: "sent", false: "lost"}[r.Backend.ProcessEvents(events...)]
	text := ""
	for _, event := range events {
		text += fmt.Sprintln(outcome, event.AuditID)
	}
	fmt.Print(text)
	return outcome == "sent"
}

func decode(line []byte) *audit.Event {
	event := &audit.Event{}
	if err := runtime.DecodeInto(backend.Codecs.UniversalDecoder(), line, event); err != nil {
		log.Fatal(err)
	}
	return event
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
