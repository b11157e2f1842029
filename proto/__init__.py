"""What is said: message types, codecs and generated code. Imports nothing else of ours."""
