//! `--device`, for every command that computes with a language model.
use exsearch_run::Device;

/// Where the language model is computed.
#[derive(clap::Args)]
pub(crate) struct DeviceArgs {
    /// Where the language model is computed; a GPU needs a build with the feature `wgpu`, `vulkan` or `cuda` [default: cpu]
    #[arg(long, value_enum, value_name = "DEVICE")]
    device: Option<Choice>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Choice {
    /// On the processor
    Cpu,
    /// On a GPU, with f32 weights
    Gpu,
    /// On a GPU, with bf16 weights: half the memory
    GpuBf16,
}

impl DeviceArgs {
    /// What is asked for, else what is configured.
    pub(crate) fn or(&self, configured: Device) -> Device {
        match self.device {
            None => configured,
            Some(Choice::Cpu) => Device::Cpu,
            Some(Choice::Gpu) => Device::Gpu,
            Some(Choice::GpuBf16) => Device::GpuBf16,
        }
    }
}
