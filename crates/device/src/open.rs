//! Finds a GPU, and says what was found where there is none that can be used.
use burn_tensor::Device;
use exsearch_model::ModelError;
use exsearch_trainer::TrainError;

/// Why a device cannot be used or a model on it cannot be opened or trained.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no GPU.
    #[error("there is no GPU that this build can use ({reason}); found: {found}; leave --device out to compute on CPU")]
    NoGpu {
        /// What the driver said.
        reason: String,
        /// What there is.
        found: String,
    },
    /// The device has no such numbers.
    #[error("{device} has no bf16; use f32")]
    NoBf16 {
        /// The device.
        device: String,
    },
    /// The model's files.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Training.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// burn's CPU device, which computes what a GPU would.
#[cfg(feature = "flex")]
pub fn open_cpu() -> Device {
    Device::flex()
}

/// A GPU.
pub struct Gpu {
    /// To make tensors on.
    pub device: Device,
    /// As it names itself.
    pub name: String,
    /// Whether it is software that poses as a GPU, which graphics drivers bring along.
    pub is_software: bool,
}

/// The first GPU that this build can use: with `cuda` NVIDIA's, with `vulkan` and `wgpu` the fastest that the system's graphics
/// API offers.
pub fn open_gpu() -> Result<Gpu, DeviceError> {
    // A card is opened once a process; who asks again gets the same.
    static OPENED: std::sync::OnceLock<Found> = std::sync::OnceLock::new();
    match OPENED.get_or_init(find) {
        Ok(device) => Ok(describe(device)),
        Err((reason, found)) => Err(DeviceError::NoGpu { reason: reason.clone(), found: found.clone() }),
    }
}

/// A device, or why there is none and what there is in its place.
type Found = Result<Device, (String, String)>;

#[cfg(feature = "cuda")]
fn find_cuda() -> Found {
    use burn_tensor::DeviceType;
    match Device::enumerate(DeviceType::Cuda).into_iter().next() {
        Some(device) => Ok(device),
        None => Err(("CUDA sees no card".to_owned(), String::new())),
    }
}

#[cfg(feature = "wgpu")]
fn find_wgpu() -> Found {
    Device::wgpu_options().init().map_err(|error| {
        use burn_tensor::wgpu::wgpu::{Backends, Instance, InstanceDescriptor};
        let instance = Instance::new(InstanceDescriptor::new_without_display_handle());
        let adapters = burn_tensor::read_sync(instance.enumerate_adapters(Backends::all()));
        let name = |info: burn_tensor::wgpu::wgpu::AdapterInfo| {
            format!("{} ({:?}, {:?})", info.name, info.device_type, info.backend)
        };
        let found: Vec<String> = adapters.iter().map(|adapter| name(adapter.get_info())).collect();
        let found = if found.is_empty() { "no graphics adapter at all".to_owned() } else { found.join(", ") };
        (error.to_string(), found)
    })
}

fn find() -> Found {
    #[cfg(all(feature = "cuda", feature = "wgpu"))]
    return find_cuda().or_else(|_| find_wgpu());
    #[cfg(all(feature = "cuda", not(feature = "wgpu")))]
    return find_cuda();
    #[cfg(all(feature = "wgpu", not(feature = "cuda")))]
    return find_wgpu();
    #[cfg(not(any(feature = "cuda", feature = "wgpu")))]
    Err(("it was built for none".to_owned(), "burn's CPU device".to_owned()))
}

fn describe(device: &Device) -> Gpu {
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    let (name, is_software) = match device.identity() {
        Some(identity) => (identity.name, identity.physical.is_none()),
        None => (format!("{device:?}"), false),
    };
    #[cfg(not(any(feature = "cuda", feature = "wgpu")))]
    let (name, is_software) = (format!("{device:?}"), true);
    Gpu { device: device.clone(), name, is_software }
}
