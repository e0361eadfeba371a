//! A frame that several pages share.

use std::ops::Range;
use std::sync::Arc;

use super::{Frame, Stretch};

/// A frame of which each of several pages has a part. A part is a frame itself, so that one can be filled while another is
/// read.
pub struct SharedFrame {
    whole: Arc<Stretch>,
    /// Where the parts lie that are out.
    parts: Vec<Range<usize>>,
}

impl SharedFrame {
    /// # Panics
    /// If anything of the frame is lent.
    pub fn new(mut frame: Frame) -> SharedFrame {
        assert!(!frame.is_lent());
        SharedFrame { whole: frame.stretch, parts: Vec::new() }
    }

    /// A frame of `len` bytes from `offset` on. It goes back by [`SharedFrame::return_part`].
    ///
    /// # Panics
    /// If the bytes lie outside, or a part that is out has one of them.
    pub fn part(&mut self, offset: usize, len: usize) -> Frame {
        let end = offset.checked_add(len).filter(|&end| end <= self.whole.len);
        let range = offset..end.expect("a part lies inside its frame");
        assert!(self.parts.iter().all(|part| part.end <= range.start || range.end <= part.start));
        self.parts.push(range);
        // The bytes are the whole's, which nobody has but this and its parts, and no part that is out has one of these.
        let stretch = Stretch {
            memory: self.whole.memory.clone(),
            offset: self.whole.offset + offset,
            len,
            returned: false,
            whole: Some(self.whole.clone()),
        };
        Frame { stretch: Arc::new(stretch), filling: false }
    }

    /// Takes a part back.
    ///
    /// # Panics
    /// If anything of the part is lent, or it is of another frame.
    pub fn return_part(&mut self, mut part: Frame) {
        let is_own = part.stretch.whole.as_ref().is_some_and(|whole| Arc::ptr_eq(whole, &self.whole));
        assert!(is_own && !part.is_lent());
        let start = part.stretch.offset - self.whole.offset;
        let found = self.parts.iter().position(|range| *range == (start..start + part.stretch.len));
        self.parts.swap_remove(found.expect("a part that is out"));
    }

    /// What it takes for each part, besides that part's own frame.
    pub const fn bytes_per_part() -> usize {
        size_of::<Range<usize>>()
    }

    /// The frame, when all parts are back.
    ///
    /// # Panics
    /// If a part is out.
    pub fn into_frame(self) -> Frame {
        assert!(self.parts.is_empty());
        Frame { stretch: self.whole, filling: false }
    }

    #[cfg(test)]
    pub fn address(&self) -> usize {
        self.whole.at(0).addr().get()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fill, refused};
    use super::*;

    #[test]
    fn parts_of_a_frame_are_filled_and_read_beside_each_other_and_never_overlap() {
        let frame = Frame::run(&[3 * 4096]).unwrap().pop().unwrap();
        let mut shared = SharedFrame::new(frame);
        let (mut first, mut second) = (shared.part(0, 4096), shared.part(4096, 8192));
        fill(&mut first, 1);
        let view = first.view(0, 4096);
        fill(&mut second, 2);
        assert!(view.bytes().iter().all(|&byte| byte == 1));
        assert!(refused(|| drop(shared.part(8192, 4096))) && refused(|| drop(shared.part(8192, 8192))));
        assert!(refused(|| shared.return_part(first)));
        drop(view);

        // A part that is lost stays out.
        assert!(refused(|| drop(shared.part(0, 1))));
        shared.return_part(second);
        let mut second = shared.part(8192, 4096);
        assert!(second.view(0, 4096).bytes().iter().all(|&byte| byte == 2));
        let mut other = SharedFrame::new(Frame::run(&[4096]).unwrap().pop().unwrap());
        assert!(refused(|| other.return_part(second)) && refused(|| drop(shared.into_frame())));
        drop(other.into_frame());
    }

    #[test]
    fn memory_of_a_shared_frame_stays_until_its_last_part_is_gone() {
        let mut frames = Frame::run(&[4096, 4096]).unwrap();
        let (mut first, _second) = (frames.remove(0), frames);
        fill(&mut first, 7);
        let mut shared = SharedFrame::new(first);
        let mut part = shared.part(0, 4096);
        let view = part.view(0, 4096);
        drop((shared, part));
        assert!(view.bytes().iter().all(|&byte| byte == 7));
    }
}
