"""The operations of the API, one router each."""
