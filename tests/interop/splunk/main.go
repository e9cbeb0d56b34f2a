// Command splunk sends lines as Docker's `splunk` logging driver sends those of a container, by that driver's own code.
//
//	splunk [name=value]... <lines
package main

import (
	"bufio"
	"log"
	"os"
	"strings"
	"time"

	"github.com/docker/docker/daemon/logger"
	"github.com/docker/docker/daemon/logger/splunk"
)

func main() {
	log.SetFlags(0)
	options := map[string]string{}
	for _, argument := range os.Args[1:] {
		name, value, _ := strings.Cut(argument, "=")
		options[name] = value
	}
	driver, err := splunk.New(logger.Info{Config: options, ContainerID: "0123456789abcdef", ContainerName: "/till"})
	if err != nil {
		log.Fatal(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		message := logger.NewMessage()
		message.Line = append(message.Line, lines.Bytes()...)
		message.Source, message.Timestamp = "stdout", time.Now()
		if err := driver.Log(message); err != nil {
			log.Fatal(err)
		}
	}
	// What the driver could not send it prints, and drops.
	if err := driver.Close(); err != nil {
		log.Fatal(err)
	}
}
