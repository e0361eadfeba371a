// Serve answers HTTP requests as OpenAI's interface does, inside a memory budget: chat completions, completions,
// embeddings and models, whole or streamed by server-sent events.
//
//	serve [-listen 127.0.0.1:8080] [-budget MIB] [-context 512] [-sessions 4] MODEL
//
// Requests run at the same time, each in a session of its own, and share readings of the weights. A session keeps the
// tokens of its last conversation, so that the next turn costs its new tokens alone. Ctrl-C ends it.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"layerline"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address and port")
	budget := flag.Uint64("budget", 0, "MiB for everything; 0: a third of the file's size")
	length := flag.Int("context", 512, "tokens that a conversation has room for")
	sessions := flag.Int("sessions", 4, "requests that run at once, as far as the budget has room for them; others wait")
	flag.Parse()
	if flag.NArg() != 1 || *sessions < 1 {
		flag.Usage()
		os.Exit(2)
	}
	options := layerline.Options{ContextLength: *length, MemoryBudget: *budget << 20, KVType: layerline.KVQ80}
	s, err := newServer(flag.Arg(0), options, *sessions)
	if err != nil {
		log.Fatal(err)
	}
	defer s.close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	within := func(net.Listener) context.Context { return ctx } // requests end with the server
	server := &http.Server{Addr: *listen, Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second, BaseContext: within}
	go func() { <-ctx.Done(); server.Close() }()
	log.Printf("http://%s/v1 serves %s, %d requests at once", *listen, s.name, len(s.idle))
	log.Print(server.ListenAndServe())
}

// server is a model and its sessions. A request takes that of the sessions which holds most of its tokens already.
type server struct {
	name    string
	model   *layerline.Model
	pooling layerline.EmbeddingRows // the mean, where the file does not ask for the first or the last
	context int
	free    chan struct{} // one for each session in idle
	lock    sync.Mutex
	idle    []*layerline.Session // that for longest first
}

// newServer opens a model and makes as many sessions as the budget has room for, up to most.
func newServer(path string, options layerline.Options, most int) (*server, error) {
	if file, err := os.Stat(path); err == nil && options.MemoryBudget == 0 {
		options.MemoryBudget = uint64(file.Size()) / 3
	}
	model, err := layerline.Open(path, options)
	if err != nil {
		return nil, err
	}
	s := &server{name: strings.TrimSuffix(filepath.Base(path), ".gguf"), model: model}
	s.free = make(chan struct{}, most)
	// The first constraint takes memory for all of them, before the sessions do.
	if first, err := model.NewConstraint(layerline.ConstraintRegex, "a"); err == nil {
		first.Close()
	}
	for len(s.idle) < most && err == nil {
		var session *layerline.Session
		if session, err = model.NewSession(0); err == nil {
			s.idle = append(s.idle, session)
			s.free <- struct{}{}
		}
	}
	if len(s.idle) == 0 || err != nil && !errors.Is(err, layerline.ErrMemoryBudget) {
		s.close()
		return nil, err
	}
	info, err := s.idle[0].Info()
	s.context = info.ContextLength
	architecture, _ := model.Metadata("general.architecture")
	kind, _ := model.Metadata(architecture + ".pooling_type")
	rows := map[string]layerline.EmbeddingRows{"2": layerline.EmbeddingsFirst, "3": layerline.EmbeddingsLast}
	if s.pooling = rows[kind]; s.pooling == layerline.EmbeddingsNone {
		s.pooling = layerline.EmbeddingsMean
	}
	return s, err
}

func (s *server) close() {
	for _, session := range s.idle {
		session.Close()
	}
	s.model.Close()
}

// within waits for a session, and has it for a request with these tokens while call runs.
func (s *server) within(ctx context.Context, tokens []layerline.Token, call func(*layerline.Session)) {
	select {
	case <-s.free:
	case <-ctx.Done():
		need(ctx.Err())
	}
	s.lock.Lock()
	best, most := 0, 0
	for i, session := range s.idle {
		if common, err := session.CommonPrefix(tokens); err == nil && common > most { // an error: it holds nothing of use
			best, most = i, common
		}
	}
	session := s.idle[best]
	s.idle = append(s.idle[:best], s.idle[best+1:]...)
	s.lock.Unlock()
	defer func() {
		s.lock.Lock()
		s.idle = append(s.idle, session)
		s.lock.Unlock()
		s.free <- struct{}{}
	}()
	call(session)
}
