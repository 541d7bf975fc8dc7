"""Reading and writing checkpoints: Hugging Face layout (`hf`) and Orbax (`orbax`), whole or spread over a mesh."""
