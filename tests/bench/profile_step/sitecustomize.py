"""Put this folder on PYTHONPATH: rank 0 profiles one training step and prints where the GPU's time went.

PROFILE_STEP=N measures from the end of the Nth optimizer step to the end of the next. For benchmarks alone: the
profiler makes a step slower, so take its shares, and times from a run without it.
"""

import os

if os.environ.get("PROFILE_STEP") and os.environ.get("RANK") == "0":
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook
    from torch.profiler import ProfilerActivity, profile

    ON_GPU = torch.cuda.is_available()  # else the operators of a CPU, to see that it runs
    first, state = int(os.environ["PROFILE_STEP"]), {"steps": 0}
    KINDS = (  # the first whose words are in the kernel's name
        ("communication", ("nccl",)),
        ("attention", ("flash", "fmha", "attention")),
        ("matrix products", ("gemm", "nvjet", "cutlass", "xmma", "cublas")),
        ("optimizer and clipping", ("adam", "multi_tensor", "lpnorm", "foreach")),
        ("copies and casts", ("memcpy", "memset", "copy", "split_with_sizes", "chunk_cat", "catarray")),
        ("compiled elementwise", ("triton",)),
    )

    def kind_of(name: str) -> str:
        for kind, words in KINDS:
            if any(word in name.lower() for word in words):
                return kind
        return "other"

    def covered(spans: list[tuple[float, float]]) -> float:
        """Length of the union of the spans."""
        total, end = 0.0, float("-inf")
        for a, b in sorted(spans):
            total += max(0.0, b - max(a, end))
            end = max(end, b)
        return total

    def tell(prof: profile) -> None:
        wanted = torch.autograd.DeviceType.CUDA if ON_GPU else torch.autograd.DeviceType.CPU
        events = [e for e in prof.events() if e.device_type == wanted and not getattr(e, "is_user_annotation", False)]
        events = [e for e in events if not e.name.startswith(("ProfilerStep", "Optimizer.", "nccl:", "FSDP", "##"))]
        spans: dict[str, list[tuple[float, float]]] = {}
        names: dict[str, float] = {}
        for e in events:
            span = (e.time_range.start, e.time_range.end)
            spans.setdefault(kind_of(e.name), []).append(span)
            names[e.name] = names.get(e.name, 0.0) + span[1] - span[0]
        every = [s for kind in spans.values() for s in kind]
        whole = max(b for _, b in every) - min(a for a, _ in every)
        computing = covered([s for kind, of in spans.items() if kind != "communication" for s in of])
        print(f"PROFILE step {first + 1}: {whole / 1e3:.0f} ms from its first to its last kernel, rank 0", flush=True)
        for kind, of in sorted(spans.items(), key=lambda item: -covered(item[1])):
            print(f"PROFILE   {kind:24} {covered(of) / 1e3:8.1f} ms {covered(of) / whole:6.1%}  {len(of)} kernels")
        print(f"PROFILE   communication alone      {(covered(every) - computing) / 1e3:8.1f} ms, not beside computing")
        idle = whole - covered(every)
        print(f"PROFILE   nothing runs             {idle / 1e3:8.1f} ms {idle / whole:6.1%}")
        for name, spent in sorted(names.items(), key=lambda item: -item[1])[:25]:
            print(f"PROFILE     {spent / 1e3:8.1f} ms  {name[:110]}", flush=True)

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if ON_GPU else [])]
    prof = profile(activities=activities, acc_events=True)

    def after_step(*_: object) -> None:
        state["steps"] += 1
        if ON_GPU:
            torch.cuda.synchronize()
        if state["steps"] == first:
            prof.start()
        elif state["steps"] == first + 1:
            prof.stop()
            try:
                tell(prof)
            except Exception as e:  # whatever a profiler of another version says, the training goes on
                print(f"PROFILE failed: {type(e).__name__}: {e}", flush=True)

    register_optimizer_step_post_hook(after_step)
