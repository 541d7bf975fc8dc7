"""From raw arrays and files to inputs: prompts of fixed shapes (`packing`), pictures and videos (`media`, `video`)."""
