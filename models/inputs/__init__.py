"""Raw arrays and files to packed inputs: token arrays to prompts of fixed shapes (`packing`), video files to frames (`video`)."""
