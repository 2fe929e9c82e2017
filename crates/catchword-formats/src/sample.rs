//! Books of our own, for demonstrations, tests and benches.
//!
//! [`all`] gives two short books with texts written for this project; [`Builder`] packs any text
//! into an EPUB 3. The same input always gives the same bytes: nothing is compressed and every
//! date is fixed.

use std::fmt::Write as _;
use std::io::{Cursor, Write as _};

use zip::result::ZipResult;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, System, ZipWriter};

/// The texts of the samples: a first line with the title, chapters under lines that begin with
/// `## `, paragraphs between empty lines.
const TEXTS: [(&str, &str, &str); 2] = [
    (
        "the-lamp-at-skerry-point.epub",
        "urn:catchword:sample:the-lamp-at-skerry-point",
        include_str!("../samples/the-lamp-at-skerry-point.txt"),
    ),
    (
        "the-library-ferry.epub",
        "urn:catchword:sample:the-library-ferry",
        include_str!("../samples/the-library-ferry.txt"),
    ),
];

/// Who wrote the samples.
const AUTHOR: &str = "The catchword authors";

/// A sample book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// A file name that fits.
    pub file_name: &'static str,
    /// The book, an EPUB 3.
    pub bytes: Vec<u8>,
}

/// Returns the sample books.
///
/// # Examples
///
/// ```
/// for sample in catchword_formats::sample::all() {
///     let book = catchword_formats::read(std::io::Cursor::new(sample.bytes))?;
///     assert!(book.title.is_some(), "{}", sample.file_name);
/// }
/// # Ok::<(), catchword_formats::RefusedFile>(())
/// ```
pub fn all() -> Vec<Sample> {
    TEXTS
        .iter()
        .map(|&(file_name, identifier, text)| Sample { file_name, bytes: pack(identifier, text) })
        .collect()
}

fn pack(identifier: &str, text: &str) -> Vec<u8> {
    let mut parts = text.split("\n## ");
    let title = parts.next().unwrap_or_default();
    let book = Builder::new(title).author(AUTHOR).identifier(identifier);
    parts
        .fold(book, |book, chapter| {
            let (heading, text) = chapter.split_once('\n').unwrap_or((chapter, ""));
            book.chapter(heading, text)
        })
        .build()
}

/// Makes an EPUB 3 in memory. For tests, benches and demonstrations.
///
/// The package lies in `EPUB/package.opf`; the n-th chapter is `EPUB/chapter-n.xhtml`, and the
/// spine holds the chapters and nothing else.
#[derive(Debug, Clone)]
pub struct Builder {
    title: String,
    authors: Vec<String>,
    language: String,
    identifier: String,
    chapters: Vec<Chapter>,
    cover: Cover,
}

#[derive(Debug, Clone)]
struct Chapter {
    heading: String,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cover {
    Drawn,
    Absent,
}

impl Builder {
    /// Begins a book in English with a drawn cover and an identifier that follows from the title.
    pub fn new(title: &str) -> Self {
        let title = title.trim();
        let slug: String = title
            .to_lowercase()
            .chars()
            .map(|c| if c.is_alphanumeric() { c } else { '-' })
            .collect();
        Self {
            title: title.to_owned(),
            authors: Vec::new(),
            language: "en".to_owned(),
            identifier: format!("urn:catchword:sample:{slug}"),
            chapters: Vec::new(),
            cover: Cover::Drawn,
        }
    }

    /// Adds an author.
    #[must_use]
    pub fn author(mut self, name: &str) -> Self {
        self.authors.push(name.to_owned());
        self
    }

    /// Sets the language tag.
    #[must_use]
    pub fn language(mut self, tag: &str) -> Self {
        tag.clone_into(&mut self.language);
        self
    }

    /// Sets the identifier.
    #[must_use]
    pub fn identifier(mut self, identifier: &str) -> Self {
        identifier.clone_into(&mut self.identifier);
        self
    }

    /// Adds a chapter. Empty lines in `text` separate its paragraphs.
    #[must_use]
    pub fn chapter(mut self, heading: &str, text: &str) -> Self {
        self.chapters.push(Chapter { heading: heading.trim().to_owned(), text: text.to_owned() });
        self
    }

    /// Leaves out the cover, which gives a warning when the book is read.
    #[must_use]
    pub fn without_cover(mut self) -> Self {
        self.cover = Cover::Absent;
        self
    }

    /// Packs the book. Without a chapter it is a file that [`read`](crate::read()) refuses.
    ///
    /// # Panics
    ///
    /// If the book is larger than an archive can be, 4 GiB.
    pub fn build(&self) -> Vec<u8> {
        self.write().expect("an archive in memory fails only when it grows too large")
    }

    fn write(&self) -> ZipResult<Vec<u8>> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let mut entry = |name: &str, text: &str| -> ZipResult<()> {
            archive.start_file(name, entry_options())?;
            archive.write_all(text.as_bytes())?;
            Ok(())
        };
        entry("mimetype", "application/epub+zip")?;
        entry("META-INF/container.xml", include_str!("../samples/container.xml"))?;
        entry("EPUB/package.opf", &self.package())?;
        entry("EPUB/nav.xhtml", &self.navigation())?;
        entry("EPUB/style.css", include_str!("../samples/style.css"))?;
        if self.cover == Cover::Drawn {
            entry("EPUB/cover.svg", &self.cover_image())?;
        }
        for (n, chapter) in (1..).zip(&self.chapters) {
            entry(&format!("EPUB/chapter-{n}.xhtml"), &self.chapter_page(chapter))?;
        }
        Ok(archive.finish()?.into_inner())
    }

    fn package(&self) -> String {
        let mut creators = String::new();
        for author in &self.authors {
            line(&mut creators, 4, &format!("<dc:creator>{}</dc:creator>", escape(author)));
        }
        let (mut items, mut refs) = (String::new(), String::new());
        if self.cover == Cover::Drawn {
            let cover = r#"<item id="cover" href="cover.svg" media-type="image/svg+xml" properties="cover-image"/>"#;
            line(&mut items, 4, cover);
        }
        for (n, _) in (1..).zip(&self.chapters) {
            let item = format!(
                r#"<item id="chapter-{n}" href="chapter-{n}.xhtml" media-type="application/xhtml+xml"/>"#
            );
            line(&mut items, 4, &item);
            line(&mut refs, 4, &format!(r#"<itemref idref="chapter-{n}"/>"#));
        }
        include_str!("../samples/package.opf")
            .replace("{{items}}\n", &items)
            .replace("{{refs}}\n", &refs)
            .replace("{{creators}}\n", &creators)
            .replace("{{identifier}}", &escape(&self.identifier))
            .replace("{{language}}", &escape(&self.language))
            .replace("{{title}}", &escape(&self.title))
    }

    fn navigation(&self) -> String {
        let mut links = String::new();
        for (n, chapter) in (1..).zip(&self.chapters) {
            let heading = escape(&chapter.heading);
            line(&mut links, 6, &format!(r#"<li><a href="chapter-{n}.xhtml">{heading}</a></li>"#));
        }
        let body = format!("  <nav epub:type=\"toc\">\n    <ol>\n{links}    </ol>\n  </nav>\n");
        self.page(&self.title, &body)
    }

    fn chapter_page(&self, chapter: &Chapter) -> String {
        let heading = escape(&chapter.heading);
        let mut body = String::new();
        line(&mut body, 2, &format!("<h1>{heading}</h1>"));
        let text = chapter.text.replace("\r\n", "\n");
        for paragraph in text.split("\n\n").map(str::trim).filter(|text| !text.is_empty()) {
            let words: Vec<&str> = paragraph.split_whitespace().collect();
            line(&mut body, 2, &format!("<p>{}</p>", escape(&words.join(" "))));
        }
        self.page(&chapter.heading, &body)
    }

    fn page(&self, title: &str, body: &str) -> String {
        include_str!("../samples/page.xhtml")
            .replace("{{language}}", &escape(&self.language))
            .replace("{{title}}", &escape(title))
            .replace("{{body}}\n", body)
    }

    fn cover_image(&self) -> String {
        include_str!("../samples/cover.svg").replace("{{title}}", &escape(&self.title))
    }
}

/// Stored, because compressors differ; a fixed date and system, because machines do.
fn entry_options() -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::DEFAULT)
        .system(System::Unix)
        .unix_permissions(0o644)
}

fn line(text: &mut String, indent: usize, content: &str) {
    writeln!(text, "{:indent$}{content}", "").expect("writing to a string cannot fail");
}

fn escape(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}
