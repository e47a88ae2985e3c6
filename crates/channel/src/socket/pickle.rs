//! What a pickle would cost, found out before it is read.
//!
//! A pickle is a program for a stack machine. A short one can build values within values, deeper than any
//! thread's stack is, or refer to what it has built again and again, until no memory holds what it says.
//! This runs the program with the sizes of the values in place of the values.

use std::collections::HashMap;

/// Reads no further than a pickle would be read, and tells why it must not be.
///
/// # Errors
///
/// Values are nested deeper than [`DEEPEST`], or take more memory than [`most`], or it does what no
/// pickle of Python's does.
pub(crate) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let mut machine = Machine {
        rest: bytes,
        stack: Vec::new(),
        stacks: Vec::new(),
        memo: HashMap::new(),
        most: most(bytes.len()),
        taken: 0,
    };
    while machine.step()? {}
    Ok(())
}

/// Values within values, at the most.
const DEEPEST: u32 = 128;

/// So many bytes may the values take, of a pickle of this length.
fn most(len: usize) -> u64 {
    const ALWAYS: u64 = 512 << 20;
    const VALUE: u64 = 64;
    ALWAYS + len as u64 * VALUE
}

/// What a value takes, its place in a vector that grows included.
const VALUE: u64 = 64;
/// What the reader takes for the items behind a mark, and keeps if they become a value.
const MARKED: u64 = 4096;
/// As many digits as Python reads: the time grows with their square.
const DIGITS: usize = 4300;

const DEEP: &str = "values are nested deeper than 128";
const LARGE: &str = "its values take too much memory: more than 512 MiB and 64 times its length";
const MALFORMED: &str = "it is malformed";
const STRANGE: &str = "it copies a value in a way that Python's pickles do not";
const DIGITS_MANY: &str = "a number has more than 4300 digits";
const RECURSIVE: &str = "a value is within itself";

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Item>,
    /// What was on the stack before each mark.
    stacks: Vec<Vec<Item>>,
    memo: HashMap<u32, Tree>,
    most: u64,
    /// By everything that was built.
    taken: u64,
}

enum Item {
    Tree(Tree),
    /// What stands in the memo under this number at the end.
    Memo(u32),
}

/// A value, but for what it refers to in the memo.
#[derive(Clone, Default)]
struct Tree {
    size: u64,
    depth: u32,
    /// Which, and how deep inside.
    refers: Vec<(u32, u32)>,
}

type Checked<T> = Result<T, &'static str>;

impl<'a> Machine<'a> {
    /// Does one operation; `false` at the end.
    fn step(&mut self) -> Checked<bool> {
        match self.byte()? {
            0x80 => _ = self.byte()?,
            0x95 => _ = self.bytes(8)?,
            b'.' => {
                let root = self.pop()?;
                self.measure_root(root)?;
                return Ok(false);
            }
            b'(' => {
                if self.stacks.len() as u32 >= DEEPEST {
                    return Err(DEEP);
                }
                self.stacks.push(std::mem::take(&mut self.stack));
            }
            b'0' if self.stack.is_empty() => _ = self.pop_mark()?,
            b'0' => _ = self.pop()?,
            b'1' => _ = self.pop_mark()?,
            b'2' => return Err(STRANGE),
            b'p' => {
                let id = self.number()?;
                self.memoize(id)?;
            }
            b'q' => {
                let id = self.byte()?;
                self.memoize(id.into())?;
            }
            b'r' => {
                let id = self.length(4)?;
                self.memoize(id as u32)?;
            }
            0x94 => self.memoize(self.memo.len() as u32)?,
            b'g' => {
                let id = self.number()?;
                self.refer(id)?;
            }
            b'h' => {
                let id = self.byte()?;
                self.refer(id.into())?;
            }
            b'j' => {
                let id = self.length(4)?;
                self.refer(id as u32)?;
            }
            b'N' | 0x88 | 0x89 => self.push_leaf(0)?,
            b'I' | b'F' => {
                let line = self.line()?.len();
                self.push_leaf(line)?;
            }
            b'L' => {
                let line = self.line()?.len();
                if line > DIGITS {
                    return Err(DIGITS_MANY);
                }
                self.push_leaf(line)?;
            }
            b'S' | b'V' => {
                // A byte may become a character of two.
                let line = self.line()?.len();
                self.push_leaf(line.saturating_mul(2))?;
            }
            b'G' => self.push_bytes(8)?,
            b'J' => self.push_bytes(4)?,
            b'M' => self.push_bytes(2)?,
            b'K' => self.push_bytes(1)?,
            0x8a | b'C' | b'U' | 0x8c => self.push_counted(1)?,
            0x8b | b'B' | b'T' | b'X' => self.push_counted(4)?,
            0x8d | 0x8e | 0x96 => self.push_counted(8)?,
            b')' | b']' | b'}' | 0x8f => self.build(Vec::new(), 0)?,
            count @ 0x85..=0x87 => {
                let items = (0x84..count).map(|_| self.pop()).collect::<Checked<_>>()?;
                self.build(items, 0)?;
            }
            b't' | b'l' | b'd' | 0x91 => {
                let items = self.pop_mark()?;
                self.build(items, MARKED)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b's' => {
                let items = vec![self.pop()?, self.pop()?];
                self.extend(items)?;
            }
            b'e' | b'u' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(items)?;
            }
            b'c' => {
                self.line()?;
                self.line()?;
                self.push_leaf(0)?;
            }
            0x93 => {
                for _ in 0..2 {
                    let name = self.pop()?;
                    self.copy(name)?;
                }
                self.push_leaf(0)?;
            }
            b'R' => self.reduce()?,
            b'i' => {
                self.line()?;
                self.line()?;
                self.pop_mark()?;
                self.build(Vec::new(), 0)?;
            }
            b'o' => {
                self.pop_mark()?;
                self.pop()?;
                self.build(Vec::new(), 0)?;
            }
            0x81 => {
                self.pop()?;
                self.pop()?;
                self.build(Vec::new(), 0)?;
            }
            0x92 => {
                self.pop()?;
                self.pop()?;
                self.pop()?;
                self.build(Vec::new(), 0)?;
            }
            b'b' => {
                let state = self.pop()?;
                self.pop()?;
                self.stack.push(state);
            }
            _ => return Err("it has an operation that is not known here"),
        }
        Ok(true)
    }

    fn byte(&mut self) -> Checked<u8> {
        Ok(self.bytes(1)?[0])
    }

    fn bytes(&mut self, len: usize) -> Checked<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(MALFORMED)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn line(&mut self) -> Checked<&'a [u8]> {
        let len = self.rest.iter().position(|byte| *byte == b'\n').ok_or(MALFORMED)?;
        let line = self.bytes(len)?;
        self.bytes(1)?;
        Ok(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// A number in a line of its own.
    fn number(&mut self) -> Checked<u32> {
        let line = str::from_utf8(self.line()?).map_err(|_| MALFORMED)?;
        line.parse().map_err(|_| MALFORMED)
    }

    /// A length in so many bytes.
    fn length(&mut self, bytes: usize) -> Checked<u64> {
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(self.bytes(bytes)?);
        Ok(u64::from_le_bytes(word))
    }

    fn push_counted(&mut self, bytes: usize) -> Checked<()> {
        let len = self.length(bytes)?;
        self.push_bytes(usize::try_from(len).map_err(|_| MALFORMED)?)
    }

    fn push_bytes(&mut self, len: usize) -> Checked<()> {
        self.bytes(len)?;
        self.push_leaf(len)
    }

    fn push_leaf(&mut self, len: usize) -> Checked<()> {
        let size = VALUE.saturating_add(len as u64);
        self.take(size)?;
        self.stack.push(Item::Tree(Tree { size, depth: 0, refers: Vec::new() }));
        Ok(())
    }

    fn take(&mut self, size: u64) -> Checked<()> {
        self.taken = self.taken.saturating_add(size);
        if self.taken > self.most { Err(LARGE) } else { Ok(()) }
    }

    fn pop(&mut self) -> Checked<Item> {
        self.stack.pop().ok_or(MALFORMED)
    }

    fn pop_mark(&mut self) -> Checked<Vec<Item>> {
        let before = self.stacks.pop().ok_or(MALFORMED)?;
        Ok(std::mem::replace(&mut self.stack, before))
    }

    /// Puts a value of these on the stack, for which the reader takes so much more.
    fn build(&mut self, items: Vec<Item>, more: u64) -> Checked<()> {
        self.take(VALUE + more)?;
        let mut tree = Tree { size: VALUE, depth: 1, refers: Vec::new() };
        tree.extend(items)?;
        self.stack.push(Item::Tree(tree));
        Ok(())
    }

    /// Adds these to the value on top.
    fn extend(&mut self, items: Vec<Item>) -> Checked<()> {
        match self.stack.last_mut().ok_or(MALFORMED)? {
            Item::Tree(tree) => tree.extend(items),
            Item::Memo(id) => self.memo.get_mut(id).ok_or(MALFORMED)?.extend(items),
        }
    }

    fn memoize(&mut self, id: u32) -> Checked<()> {
        match self.pop()? {
            Item::Tree(tree) => self.memo.insert(id, tree),
            // The reader would copy it.
            Item::Memo(_) => return Err(STRANGE),
        };
        self.stack.push(Item::Memo(id));
        self.take(VALUE)
    }

    fn refer(&mut self, id: u32) -> Checked<()> {
        if !self.memo.contains_key(&id) {
            return Err(MALFORMED);
        }
        self.stack.push(Item::Memo(id));
        self.take(VALUE)
    }

    /// Takes a value that the reader copies if it is in the memo.
    fn copy(&mut self, item: Item) -> Checked<Tree> {
        match item {
            Item::Tree(tree) => Ok(tree),
            Item::Memo(id) => {
                let size = self.memo.get(&id).ok_or(MALFORMED)?.size;
                self.take(size)?;
                self.memo.get(&id).cloned().ok_or(MALFORMED)
            }
        }
    }

    /// A few functions make values of their arguments, which the reader copies if they are in the memo.
    fn reduce(&mut self) -> Checked<()> {
        let arguments = self.pop()?;
        let mut made = self.copy(arguments)?;
        let function = self.pop()?;
        self.copy(function)?;
        for (id, at) in made.refers.clone() {
            if at == 1 {
                let copy = self.copy(Item::Memo(id))?;
                made.extend(vec![Item::Tree(copy)])?;
            }
        }
        // Text whose characters become bytes, or the other way round.
        self.take(made.size.saturating_mul(2))?;
        self.stack.push(Item::Tree(made));
        Ok(())
    }

    fn measure_root(&self, root: Item) -> Checked<()> {
        let mut tree = Tree { depth: 1, ..Tree::default() };
        tree.extend(vec![root])?;
        self.measure(&tree, 0, &mut HashMap::new()).map(|_| ())
    }

    /// How large and how deep a value is with all that it refers to.
    fn measure(
        &self,
        tree: &Tree,
        level: u32,
        known: &mut HashMap<u32, Option<(u64, u32)>>,
    ) -> Checked<(u64, u32)> {
        if level > DEEPEST {
            return Err(DEEP);
        }
        let (mut size, mut depth) = (tree.size, tree.depth);
        for (id, at) in &tree.refers {
            let (more, deeper) = match known.get(id) {
                Some(Some(both)) => *both,
                Some(None) => return Err(RECURSIVE),
                None => {
                    known.insert(*id, None);
                    let within = self.memo.get(id).ok_or(MALFORMED)?;
                    let both = self.measure(within, level + 1, known)?;
                    known.insert(*id, Some(both));
                    both
                }
            };
            size = size.saturating_add(more);
            depth = depth.max(at + deeper);
            if size > self.most {
                return Err(LARGE);
            }
            if depth > DEEPEST {
                return Err(DEEP);
            }
        }
        Ok((size, depth))
    }
}

impl Tree {
    fn extend(&mut self, items: Vec<Item>) -> Checked<()> {
        for item in items {
            match item {
                Item::Memo(id) => {
                    self.size = self.size.saturating_add(VALUE);
                    self.refers.push((id, 1));
                }
                Item::Tree(tree) => {
                    self.size = self.size.saturating_add(tree.size);
                    self.depth = self.depth.max(tree.depth + 1);
                    self.refers.extend(tree.refers.into_iter().map(|(id, at)| (id, at + 1)));
                }
            }
        }
        if self.depth > DEEPEST { Err(DEEP) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bomb(parts: &[&[u8]]) -> Vec<u8> {
        [b"\x80\x04", &parts.concat()[..], b"."].concat()
    }

    #[test]
    fn nested_values_are_refused_however_they_are_nested() {
        let one_in_another = |deep| bomb(&[b")", &b"\x85".repeat(deep)]);
        assert_eq!(check(&one_in_another(100)), Ok(()));
        assert_eq!(check(&one_in_another(1000)), Err(DEEP));
        let marks = |deep| bomb(&[&b"(".repeat(deep), &b"l".repeat(deep)]);
        assert_eq!(check(&marks(100)), Ok(()));
        assert_eq!(check(&marks(100_000)), Err(DEEP));
        let by_memo = |deep| {
            let step = |level: u8| vec![b'\x85', b'q', level, b'0', b'h', level];
            bomb(&[b")", &(0..deep).flat_map(step).collect::<Vec<u8>>()])
        };
        assert_eq!(check(&by_memo(100)), Ok(()));
        assert_eq!(check(&by_memo(200)), Err(DEEP));
        // What is never part of the value is dropped, and that recurses too.
        assert_eq!(check(&bomb(&[b")", &b"\x85".repeat(1000), b"0N"])), Err(DEEP));
    }

    #[test]
    fn values_that_grow_without_bytes_are_refused() {
        // Each list has the one before ten times.
        let laughs: Vec<u8> = (1..20u8)
            .flat_map(|level| {
                let ten = [b'h', level - 1].repeat(10);
                [&[b']', b'q', level, b'('][..], &ten, b"e"].concat()
            })
            .collect();
        assert_eq!(check(&bomb(&[b"]q\0", &laughs])), Err(LARGE));
        assert_eq!(check(&bomb(&[b")", &b"2\x86".repeat(60)])), Err(STRANGE));
        assert_eq!(check(&bomb(&[b"]q\0", &b"q\x01q\0".repeat(60)])), Err(STRANGE));
        assert_eq!(check(&bomb(&[b"(", &b"(t".repeat(200_000), b"l"])), Err(LARGE));
        let large = [b"B".as_slice(), &(1u32 << 20).to_le_bytes(), &[7; 1 << 20]].concat();
        let sets = b"h\x01h\0R0".repeat(1000);
        let parts: [&[u8]; 5] = [b"cbuiltins\nset\nq\x01(", &large, b"l\x85q\0", &sets, b"N"];
        assert_eq!(check(&bomb(&parts)), Err(LARGE));
        assert_eq!(check(&bomb(&[b"]q\0h\0a"])), Err(RECURSIVE));
        assert_eq!(check(&bomb(&[b"L", &b"9".repeat(5000), b"L\n"])), Err(DIGITS_MANY));
    }

    #[test]
    fn what_is_cut_short_or_unknown_is_malformed() {
        for bytes in [&b""[..], b"\x80", b"X\xff\xff\xff\x7fhi", b"h\0.", b"g1\n.", b"e.", b"Q."] {
            assert!(check(bytes).is_err(), "{bytes:?}");
        }
        assert!(check(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.").is_err());
    }
}
