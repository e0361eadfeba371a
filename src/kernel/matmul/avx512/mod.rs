//! placeholder
use super::Job;
use crate::quant::Format;
pub(super) unsafe fn multiply(format: Format, job: &Job) {
    unsafe { super::avx2::multiply(format, job) }
}
