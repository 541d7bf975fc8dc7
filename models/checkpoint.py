def save_hf(*a, **k): raise NotImplementedError
