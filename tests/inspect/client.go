// Connects with a server name and, if given, protocols; sends a word and prints what comes back, and
// the protocol.
//
// usage: client ADDRESS NAME WORD [PROTOCOL...]
package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"strings"
)

func main() {
	address, name, word := os.Args[1], os.Args[2], os.Args[3]
	config := &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: os.Args[4:]}
	connection, err := tls.Dial("tcp", address, config)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Fprint(connection, word)
	seen, buffer := "", make([]byte, 4096)
	for !strings.Contains(seen, word) {
		count, err := connection.Read(buffer)
		if err != nil {
			fmt.Println(seen, err)
			os.Exit(1)
		}
		seen += string(buffer[:count])
	}
	fmt.Println(seen, connection.ConnectionState().NegotiatedProtocol)
}
