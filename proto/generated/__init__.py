"""Generated from the .proto files beside this folder by `make proto`; never edited."""
