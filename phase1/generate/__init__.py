"""Problems to completions: transformers or vLLM servers behind one protocol."""
