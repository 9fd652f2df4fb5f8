// Package notests has a test file without tests.
package notests
