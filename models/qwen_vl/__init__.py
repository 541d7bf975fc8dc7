"""What the ports of Qwen2.5-VL and Qwen3-VL share: pictures and videos as patches, merged 2 x 2 into visual tokens."""
